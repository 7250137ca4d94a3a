"""Kept vision features: chosen by size and use, the loss of training on pixels, and files that notice what
changed.
"""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from llava.errors import UsageError
from llava.model.lora import LoraSettings, add_lora
from llava.train.collator import PackingCollator
from llava.train.sample_index import Sample, SampleIndex
from llava.train.vision_cache import (
    PICTURES_AT_ONCE,
    Seer,
    Use,
    choose_kind,
    keep_in_memory,
    keep_on_disk,
    obstacle_of,
    times_seen,
)
from llava.train.vision_files import row_bytes
from tests.tiny import NUM_PATCHES, mixed_examples, picture, tiny_model

LOSS_ATOL = 2e-6  # fp32, worst seen over 50 seeds 9.5e-7; another picture's features give 1e-2
CPU = torch.device("cpu")
GOOD = Use(num_pictures=10, num_seen=30, bytes_each=1000, obstacle=None)


@pytest.mark.parametrize(
    ("wanted", "use", "free", "kind", "why"),
    [
        ("auto", GOOD, 80_000, "memory", "seen 30 times"),
        ("auto", GOOD, 79_999, "off", "--cache_vision_features disk"),
        ("auto", Use(10, 10, 1000, None), 10**9, "off", "seen once"),
        ("auto", Use(10, 30, 1000, "the vision tower is trained"), 10**9, "off", "is trained"),
        ("auto", Use(0, 0, 1000, None), 10**9, "off", "no sample has a picture"),
        ("memory", Use(10, 10, 1000, None), 0, "memory", "--cache_vision_features memory"),
        ("disk", Use(0, 0, 1000, None), 0, "off", "no sample has a picture"),
        ("disk", GOOD, 10**9, "disk", "--cache_vision_features disk"),
        ("off", GOOD, 10**9, "off", "--cache_vision_features off"),
    ],
)
def test_choice(wanted: str, use: Use, free: int, kind: str, why: str) -> None:
    found = choose_kind(wanted, use, free_bytes=free)
    assert found[0] == kind
    assert why in found[1]


def test_features_that_change_cannot_be_kept() -> None:
    model = tiny_model()
    trained = obstacle_of(model.model.vision_tower)
    assert trained == "the vision tower is trained"
    with pytest.raises(UsageError, match=r"disk: the vision tower is trained.*--freeze_vision_tower True"):
        choose_kind("disk", Use(1, 2, 1, trained), free_bytes=10**9)
    model.model.vision_tower.requires_grad_(False)
    assert obstacle_of(model.model.vision_tower) is None
    model.model.vision_tower.config.attention_dropout = 0.1
    assert obstacle_of(model.model.vision_tower) == "the vision tower has dropout"


def test_uses_are_those_of_the_packs() -> None:
    pictures = [("a",)] * 5 + [("b",)] * 2 + [("a", "b")] + [()] * 3
    index = SampleIndex.of([Sample(str(row), row, names, ()) for row, names in enumerate(pictures)])
    of = (index.groups, index.num_pictures)
    assert times_seen(*of, shared=True, max_branches=4, epochs=1) == 2 + 1 + 2
    assert times_seen(*of, shared=False, max_branches=4, epochs=1) == 5 + 2 + 2
    assert times_seen(*of, shared=True, max_branches=4, epochs=2.5) == 13


def frozen_model(seed: int = 0) -> nn.Module:
    """A tiny model whose tower does not train."""
    model = tiny_model(seed)
    model.model.vision_tower.requires_grad_(False)
    return model.train()


class Calls:
    """Counts the pictures that a tower sees."""

    def __init__(self, model: nn.Module) -> None:
        self.number = 0
        model.model.vision_tower.register_forward_hook(self.count)

    def count(self, module: nn.Module, args: tuple, output: object) -> None:
        self.number += len(args[0])


def losses(model: nn.Module, seed: int, mode: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Loss and projector gradient on pixels, and on features that were kept before."""
    examples = mixed_examples(seed)
    paths = sorted({path for example in examples for path in example.images})
    store = keep_in_memory(Seer(model, picture, CPU), paths)
    found = []
    for collator in (
        PackingCollator(mode, picture),
        PackingCollator(mode, lambda path: pytest.fail("a picture was opened"), vision_features=store),
    ):
        model.zero_grad()
        loss = model(**collator(examples)).loss
        loss.backward()
        found.append([loss.detach(), model.model.multi_modal_projector.linear_1.weight.grad.clone()])
    return found[0], found[1]


@pytest.mark.parametrize("mode", ["none", "packed", "shared"])
def test_training_on_features_is_training_on_pixels(mode: str) -> None:
    for seed in range(3):
        pixels, features = losses(frozen_model(seed), seed, mode)
        for one, other in zip(pixels, features, strict=True):
            torch.testing.assert_close(one, other, atol=LOSS_ATOL, rtol=0)
        assert pixels[1].abs().max() > 1e-3


@pytest.mark.parametrize("scales", [{}, {"s2": True, "s2_scales": "8,16"}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_batches_give_equal_bits(scales: dict, dtype: torch.dtype) -> None:
    model = tiny_model(1, **scales)
    model.model.vision_tower.requires_grad_(False).to(dtype)
    paths = ["a", "b", "c"]
    store = keep_in_memory(Seer(model, picture, CPU), paths)
    assert store.tensor.dtype == dtype
    pixels = torch.stack([picture(path) for path in paths])
    assert torch.equal(model.encode_images(pixels), model.project(store.stack(paths)))
    assert torch.equal(store.stack(["c", "a", "c"]), store.tensor[[2, 0, 2]])


def test_autocast_is_that_of_a_step() -> None:
    model = frozen_model()
    store = keep_in_memory(Seer(model, picture, CPU, autocast=torch.bfloat16), ["a", "b"])
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        seen = model.tower_features(torch.stack([picture("a"), picture("b")]))
    assert torch.equal(store.tensor, seen)
    assert store.tensor.dtype == seen.dtype
    plain = keep_in_memory(Seer(model, picture, CPU), ["a", "b"])
    assert not torch.equal(store.tensor.float(), plain.tensor)


def test_a_batch_without_pictures_runs_no_tower_and_gives_the_projector_a_gradient_of_zero() -> None:
    model = frozen_model()
    store = keep_in_memory(Seer(model, picture, CPU), ["a"])
    texts = [example for example in mixed_examples(0) if not example.images]
    batch = PackingCollator("shared", picture, vision_features=store)(texts)
    assert batch["vision_features"].shape == (0, NUM_PATCHES, 16)
    calls = Calls(model)
    model(**batch).loss.backward()
    gradient = model.model.multi_modal_projector.linear_1.weight.grad
    assert calls.number == 0
    assert gradient is not None
    assert not gradient.any()


def test_features_reach_a_model_that_peft_has_wrapped() -> None:
    model = add_lora(tiny_model(3), LoraSettings(rank=2, alpha=4, dropout=0.0)).train()
    store = keep_in_memory(Seer(model.get_base_model(), picture, CPU), ["a", "b"])
    examples = mixed_examples(3)
    on_pixels = model(**PackingCollator("shared", picture)(examples)).loss
    on_features = model(**PackingCollator("shared", picture, vision_features=store)(examples)).loss
    torch.testing.assert_close(on_features, on_pixels, atol=LOSS_ATOL, rtol=0)


def test_more_pictures_than_a_batch_come_in_order() -> None:
    model = frozen_model()
    paths = [f"picture {number}" for number in range(PICTURES_AT_ONCE + 3)]
    store = keep_in_memory(Seer(model, picture, CPU), paths)
    with torch.no_grad():
        for path in (paths[0], paths[-1], paths[PICTURES_AT_ONCE]):
            alone = model.tower_features(picture(path)[None])
            torch.testing.assert_close(store.stack([path]), alone, atol=2e-6, rtol=0)


def content(path: str) -> torch.Tensor:
    """Pixels that depend on a file's bytes."""
    return picture(Path(path).read_text())


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Four picture files, two of which have the same bytes."""
    paths = [tmp_path / f"{name}.png" for name in "abcd"]
    for path, text in zip(paths, ["one", "two", "three", "one"], strict=True):
        path.write_text(text)
    return [str(path) for path in paths]


def test_disk_computes_once_and_notices_what_changed(files: list[str], tmp_path: Path) -> None:
    model, folder = frozen_model(), tmp_path / "cache"
    calls, seer = Calls(model), Seer(model, content, CPU)
    first = keep_on_disk(seer, files, folder, "settings")
    assert calls.number == 3, "equal bytes are seen once"
    assert torch.equal(first.stack(files[:1]), first.stack(files[3:]))
    again = keep_on_disk(seer, files, folder, "settings")
    assert calls.number == 3
    assert torch.equal(again.stack(files), first.stack(files))
    twin = keep_in_memory(seer, files)
    torch.testing.assert_close(first.stack(files), twin.stack(files), atol=2e-6, rtol=0)
    calls.number = 0
    Path(files[1]).write_text("another picture of the same name")
    changed = keep_on_disk(seer, files, folder, "settings")
    assert calls.number == 1, "only the changed picture is seen"
    assert torch.equal(changed.stack(files[2:]), first.stack(files[2:]))
    assert not torch.equal(changed.stack(files[1:2]), first.stack(files[1:2]))
    assert not list(folder.rglob("*.part"))


def test_disk_keeps_towers_and_processors_apart(files: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    model = frozen_model()
    keep_on_disk(Seer(model, content, CPU), files, folder, {"image_mean": [0.5]})
    keep_on_disk(Seer(model, content, CPU), files, folder, {"image_mean": [0.4]})
    keep_on_disk(Seer(model, content, CPU, autocast=torch.bfloat16), files, folder, {"image_mean": [0.5]})
    with torch.no_grad():
        next(model.model.vision_tower.parameters()).view(-1)[0] += 1e-3
    keep_on_disk(Seer(model, content, CPU), files, folder, {"image_mean": [0.5]})
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("damage", ["short", "no description", "garbage"])
def test_disk_does_not_trust_an_unfinished_file(damage: str, files: list[str], tmp_path: Path) -> None:
    model, folder = frozen_model(), tmp_path / "cache"
    calls, seer = Calls(model), Seer(model, content, CPU)
    expected = keep_on_disk(seer, files, folder, 1).stack(files).clone()
    (data,) = folder.rglob("*.features")
    if damage == "short":
        data.write_bytes(data.read_bytes()[:-4])
    elif damage == "garbage":
        data.with_suffix(".json").write_text('{"dtype": "float32", "pict')
    else:
        data.with_suffix(".json").unlink()
    calls.number = 0
    assert torch.equal(keep_on_disk(seer, files, folder, 1).stack(files), expected)
    assert calls.number == 3


def test_an_interrupted_pass_leaves_nothing(files: list[str], tmp_path: Path) -> None:
    def broken(path: str) -> torch.Tensor:
        raise UsageError("the picture is damaged")

    with pytest.raises(UsageError, match="damaged"):
        keep_on_disk(Seer(frozen_model(), broken, CPU), files, tmp_path / "cache", 1)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_full_disk_is_told(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 3 * row_bytes(torch.float32, (NUM_PATCHES, 16))
    usage = type("Usage", (), {"free": needed - 1})
    monkeypatch.setattr("llava.train.vision_files.shutil.disk_usage", lambda folder: usage)
    seer = Seer(frozen_model(), content, CPU)
    with pytest.raises(UsageError, match=r"3 pictures take .* GB free; name another folder"):
        keep_on_disk(seer, files, tmp_path / "cache", 1)
    usage.free = needed
    keep_on_disk(seer, files, tmp_path / "cache", 1)


def test_a_store_on_disk_travels_without_its_rows(files: list[str], tmp_path: Path) -> None:
    model = frozen_model()
    store = keep_on_disk(Seer(model, content, CPU), files, tmp_path / "cache", 1)
    packed = pickle.dumps(store)
    row = row_bytes(torch.float32, (NUM_PATCHES, 16))
    assert len(packed) < 2000 + row
    assert store.tensor.numpy().tobytes()[:row] not in packed
    assert torch.equal(pickle.loads(packed).stack(files), store.stack(files))
    in_memory = keep_in_memory(Seer(model, content, CPU), files)
    assert torch.equal(pickle.loads(pickle.dumps(in_memory)).stack(files), in_memory.stack(files))
