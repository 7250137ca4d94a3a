"""Models by hub id: from the hub's cache, from the folder of --cache_dir, and what is said where they are not
there.
"""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from llava.errors import UsageError
from llava.model.builder import load_pretrained_model
from tests.parity.golden import golden_folder
from tests.parity.training import Run, run_training, working_folder

REVISION = "0123456789abcdef0123456789abcdef01234567"


def put(cache: Path, hub_id: str, model: str) -> None:
    """A golden model in the layout of the hub's cache."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION, encoding="utf-8")
    shutil.copytree(golden_folder(model), repository / "snapshots" / REVISION)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a language model, a vision tower and a LLaVA, and no way to the hub."""
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(working_folder(tmp_path / "models"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    put(folder, "someone/vicuna", "tiny-vicuna-v1.5")
    put(folder, "someone/clip", "tiny-clip")
    put(folder, "someone/llava", "llava-v1.5-tiny")
    return folder


def train(folder: Path, monkeypatch: pytest.MonkeyPatch, model: str, *flags: str) -> Run:
    """One step."""
    argv = [
        *("--model_name_or_path", model, "--data_path", "data/traj8.json", "--image_folder", "data"),
        *("--max_steps", "1", "--logging_steps", "1", "--save_strategy", "no"),
        *("--dataloader_num_workers", "0", "--mm_vision_select_layer", "-2"),
    ]
    return run_training([*argv, *flags], folder, monkeypatch)


PARTS = ("--mm_projector_type", "mlp2x_gelu", "--vision_tower")


def test_language_model_and_vision_tower_from_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_id = train(tmp_path / "id", monkeypatch, "someone/vicuna", *PARTS, "someone/clip")
    by_path = train(tmp_path / "path", monkeypatch, "tiny-vicuna-v1.5", *PARTS, "tiny-clip")
    assert by_id.losses == by_path.losses


def test_a_llava_from_the_cache_and_its_adapter(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter records where the base lies on this machine, so that it opens by its path alone."""
    from llava.model.builder import load_pretrained_model

    train(tmp_path / "out", monkeypatch, "someone/llava", "--lora_enable", "True")
    load_pretrained_model(str(tmp_path / "out"))


def test_cache_dir_names_another_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.rename(tmp_path / "mine")
    with pytest.raises(UsageError, match="'someone/llava' is neither a folder"):
        train(tmp_path / "a", monkeypatch, "someone/llava")
    run = train(tmp_path / "b", monkeypatch, "someone/llava", "--cache_dir", str(tmp_path / "mine"))
    assert len(run.losses) == 1


def test_the_loader_takes_a_cache_too(cache: Path, tmp_path: Path) -> None:
    cache.rename(tmp_path / "mine")
    with pytest.raises(UsageError, match="'someone/llava' is neither a folder"):
        load_pretrained_model("someone/llava", device="cpu")
    _, model, _, _ = load_pretrained_model("someone/llava", device="cpu", cache_dir=str(tmp_path / "mine"))
    assert model.config.mm_vision_select_layer == -2


@pytest.mark.parametrize(
    ("model", "tower", "wanted"),
    [
        ("someone/unknown", "someone/clip", "'someone/unknown' is neither a folder"),
        (
            "someone/vicuna",
            "openai/clip-vit-large-patch14-336",
            "patch14-336' is neither a folder",
        ),
        ("no/such/folder", "tiny-clip", "'no/such/folder' was not found"),
        ("someone/vicuna", "no-such-tower", "'no-such-tower' was not found"),
    ],
)
def test_what_is_not_there_is_named(
    model: str, tower: str, wanted: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=wanted):
        train(tmp_path / "out", monkeypatch, model, *PARTS, tower)
