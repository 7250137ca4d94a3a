"""The original's names, as other people's code calls them."""

import base64
from io import BytesIO

import pytest
import torch
from PIL import Image

from llava.mm_utils import (
    expand2square,
    get_model_name_from_path,
    load_image_from_base64,
    tokenizer_image_token,
)
from tests.parity.golden import golden, golden_tokenizer


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


def test_another_image_token_index() -> None:
    ids = tokenizer_image_token("a <image> b", golden_tokenizer("nonlegacy"), image_token_index=999)
    assert ids == [1, 261, 910, 999, 265, 926]


def test_a_picture_from_base64() -> None:
    buffer = BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    image = load_image_from_base64(base64.b64encode(buffer.getvalue()).decode())
    assert (image.size, image.getpixel((0, 0))) == ((3, 2), (255, 0, 0))


def test_a_square_is_left_as_it_is() -> None:
    image = Image.new("RGB", (4, 4))
    assert expand2square(image, (1, 2, 3)) is image
    assert expand2square(Image.new("RGB", (4, 1)), (1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)
