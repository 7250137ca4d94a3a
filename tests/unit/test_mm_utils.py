"""The original's names, as other people's code calls them."""

import ast
import base64
import inspect
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from llava import constants, mm_utils
from llava.mm_utils import (
    expand2square,
    get_model_name_from_path,
    load_image_from_base64,
    tokenizer_image_token,
)
from llava.utils import disable_torch_init
from tests.parity.golden import golden, golden_tokenizer

SIGNATURES = {
    "KeywordsStoppingCriteria": ["keywords", "tokenizer", "input_ids"],
    "divide_to_patches": ["image", "patch_size"],
    "expand2square": ["pil_img", "background_color"],
    "get_anyres_image_grid_shape": ["image_size", "grid_pinpoints", "patch_size"],
    "get_model_name_from_path": ["model_path"],
    "load_image_from_base64": ["image"],
    "process_anyres_image": ["image", "processor", "grid_pinpoints"],
    "process_images": ["images", "image_processor", "model_cfg"],
    "resize_and_pad_image": ["image", "target_resolution"],
    "select_best_resolution": ["original_size", "possible_resolutions"],
    "tokenizer_image_token": ["prompt", "tokenizer", "image_token_index", "return_tensors"],
}
"""The original's names of arguments, in its order: people pass them by place and by name."""


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_the_originals(name: str) -> None:
    assert list(inspect.signature(getattr(mm_utils, name)).parameters) == SIGNATURES[name]


def test_mm_utils_holds_no_logic() -> None:
    tree = ast.parse(Path(mm_utils.__file__).read_text(encoding="utf-8"))
    assert set(mm_utils.__all__) >= set(SIGNATURES)
    assert {type(node) for node in tree.body} == {ast.Expr, ast.ImportFrom, ast.Assign}


def test_constants_are_the_originals() -> None:
    wanted = golden("tokenize/image_token.json")["constants"]
    assert {name: getattr(constants, name) for name in wanted} == wanted


def test_light_names_need_no_torch() -> None:
    code = (
        "import sys, llava, llava.constants, llava.conversation, llava.utils; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_switching_off_initialisation_changes_nothing() -> None:
    torch.manual_seed(0)
    before = torch.nn.Linear(2, 2).weight
    disable_torch_init()
    torch.manual_seed(0)
    assert torch.equal(torch.nn.Linear(2, 2).weight, before)


@pytest.mark.parametrize(
    "case", golden("tokenize/model_name_from_path.json")["cases"], ids=lambda c: c["path"]
)
def test_model_names(case: dict[str, str]) -> None:
    assert get_model_name_from_path(case["path"]) == case["name"]


def test_ids_as_a_tensor() -> None:
    ids = tokenizer_image_token("a <image>", golden_tokenizer("nonlegacy"), return_tensors="pt")
    assert isinstance(ids, torch.Tensor)
    assert (ids.dtype, tuple(ids.shape)) == (torch.int64, (4,))
    with pytest.raises(ValueError, match="'np'"):
        tokenizer_image_token("a", golden_tokenizer("nonlegacy"), return_tensors="np")


def test_other_indices_and_forms() -> None:
    cases = golden("tokenize/image_token.json")["extra"]
    assert {"image_token_index", "return_tensors"} <= {key for case in cases for key in case}
    for case in cases:
        tokenizer = golden_tokenizer(case.get("tokenizer", "nonlegacy"))
        options = {key: case[key] for key in ("image_token_index", "return_tensors") if key in case}
        if "error" in case:
            with pytest.raises(ValueError, match="return_tensors is 'np'"):
                tokenizer_image_token(case["prompt"], tokenizer, **options)
            continue
        found = tokenizer_image_token(case["prompt"], tokenizer, **options)
        if "ids" in case:
            assert found == case["ids"]
        else:
            assert (str(found.dtype), list(found.shape)) == (case["dtype"], case["shape"])


def test_a_picture_from_base64() -> None:
    buffer = BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    image = load_image_from_base64(base64.b64encode(buffer.getvalue()).decode())
    assert (image.size, image.getpixel((0, 0))) == ((3, 2), (255, 0, 0))


def test_a_square_is_left_as_it_is() -> None:
    image = Image.new("RGB", (4, 4))
    assert expand2square(image, (1, 2, 3)) is image
    assert expand2square(Image.new("RGB", (4, 1)), (1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)
