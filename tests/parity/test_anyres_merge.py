"""Pictures in tiles (LLaVA-1.6): the original's embeddings for every way of putting tiles together."""

import pytest
import torch
from torch import Tensor

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import UsageError
from llava.model.builder import new_model
from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM
from llava.processing import load_image, prepare_picture
from tests.parity.golden import DATA, golden, open_shared

GOLDEN = golden("model/anyres_merge.json")
CASES = [case for case in GOLDEN["cases"] if "error" not in case]
NAME = "llava-v1.5-tiny"
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
MEAN_ATOL = 1e-5  # fp32: worst seen 5e-7 (stored with six places)
SUM_RTOL = 1e-5  # worst seen 2e-7


def model_in_tiles(merge: str, ratio: str) -> LlavaForCausalLM:
    """The golden model with the options and the newline that the goldens were recorded with."""
    _, model, _, _ = open_shared(NAME)
    values = model.config.to_dict() | {
        "mm_patch_merge_type": merge,
        "image_aspect_ratio": ratio,
        "image_grid_pinpoints": PINPOINTS,
    }
    changed = new_model(LlavaConfig.from_dict(values), dtype=torch.float32, attn_implementation=None)
    state = model.state_dict()
    if "unpad" in merge:
        state["model.image_newline"] = 0.02 * (torch.arange(64) - 32)
    changed.load_state_dict(state)
    return changed.eval()


def embeddings(model: LlavaForCausalLM, names: list[str]) -> tuple[Tensor, list[tuple[int, int]]]:
    """The embeddings of `<s>`, the pictures and one word, and the pictures' sizes."""
    _, _, processor, _ = open_shared(NAME)
    files = [DATA / "images" / f"{name}.png" for name in names]
    pictures = [prepare_picture(load_image(file), processor, model.config) for file in files]
    ids = torch.tensor([[1, *[IMAGE_TOKEN_INDEX] * len(pictures), 5]])
    sizes = [picture.size for picture in pictures]
    with torch.no_grad():
        expanded, features = model.from_original_form(
            ids, None, images=[picture.pixels for picture in pictures], image_sizes=sizes
        )
        return model.fuse(expanded.input_ids, None, features)[0], sizes


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case["images"])))
def test_tiles_are_put_together_as_in_the_original(case: dict) -> None:
    model = model_in_tiles(case["mm_patch_merge_type"], case["image_aspect_ratio"])
    found, sizes = embeddings(model, case["images"])
    assert [list(size) for size in sizes] == case["sizes_wh"]
    assert len(found) == case["sequence_length"]
    wanted = torch.tensor(case["row_mean_every_5"])
    torch.testing.assert_close(found.mean(-1)[::5], wanted, atol=MEAN_ATOL, rtol=0)
    assert found.abs().sum().item() == pytest.approx(case["total_abs_sum"], rel=SUM_RTOL)


def test_an_unknown_way_is_refused_by_name() -> None:
    errors = [case for case in GOLDEN["cases"] if "error" in case]
    for case in errors:
        with pytest.raises(UsageError, match=f"mm_patch_merge_type is {case['mm_patch_merge_type']!r}"):
            model_in_tiles(case["mm_patch_merge_type"], case["image_aspect_ratio"])
    assert len(errors) == 1


def test_tokens_are_counted_before_the_model_runs() -> None:
    seen = set()
    for case in CASES:
        if case["image_aspect_ratio"] != "anyres":
            continue
        config = model_in_tiles(case["mm_patch_merge_type"], "anyres").config
        counted = sum(config.num_image_tokens(tuple(size)) for size in case["sizes_wh"])
        assert counted == case["image_tokens_total"]
        seen.add(case["mm_patch_merge_type"])
    assert seen == {"flat", "spatial", "spatial_unpad"}


def test_every_way_is_in_the_goldens() -> None:
    found = {(case["mm_patch_merge_type"], case["image_aspect_ratio"]) for case in CASES}
    assert len(found) == 6
    assert str(PINPOINTS) in GOLDEN["note"]
