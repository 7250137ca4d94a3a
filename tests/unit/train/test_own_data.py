"""Data files as the original took them, through two training steps; and samples that a length leaves
nothing of.
"""

import json
import logging
from pathlib import Path

import pytest
import torch

from llava.conversation import training_template
from llava.errors import UsageError
from llava.train.conversations import ConversationDataset, Encoding, check_long_samples
from llava.train.samples import Sample, read_samples
from tests.parity.golden import golden_tokenizer
from tests.parity.training import Run, run_training, working_folder

LOSS_ATOL = 1e-5  # fp32, two steps: worst seen 4.8e-7


def turns(*texts: str) -> list[dict[str, str]]:
    """Texts in turn from human and gpt."""
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


RED, BLUE = "images/solid_red_0.png", "images/solid_blue_0.png"
MIXED = {
    "picture first": {"id": "a", "image": RED, "conversations": turns("<image>\nWhich color?", "red")},
    "picture last": {"id": "b", "image": RED, "conversations": turns("Which color?\n<image>", "red")},
    "picture within": {"id": 3, "image": BLUE, "conversations": turns("Is <image> dark?", "Yes")},
    "picture marked twice": {"image": BLUE, "conversations": turns("<image>\n<image>\nWhich?", "blue")},
    "several turns": {"image": BLUE, "conversations": turns("<image>\nWhich?", "blue", "Dark?", "Yes")},
    "a list of one": {"id": "f", "image": [RED], "conversations": turns("<image>\nWhich color?", "red")},
    "a list of two": {
        "id": "g",
        "image": [RED, BLUE],
        "conversations": turns("<image>\nWhich?", "red", "<image>\nAnd now?", "blue"),
    },
    "text only": {"id": "h", "conversations": turns("Name an animal.", "A dog.")},
    "null": {"id": "i", "image": None, "conversations": turns("Say hello.", "Hello.")},
    "other keys": {
        "id": "j",
        "image": RED,
        "source": "mine",
        "width": 20,
        "tags": ["x"],
        "conversations": [turn | {"note": 1} for turn in turns("<image>\nWhich color?", "red")],
    },
    "gpt first": {"id": "k", "conversations": [{"from": "gpt", "value": "Hi!"}, *turns("Hello.", "Hello.")]},
    "no question": {"id": "l", "image": BLUE, "conversations": turns("<image>", "A blue picture.")},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the golden paths are relative to, with a mixed data file."""
    folder = working_folder(tmp_path_factory.mktemp("models"))
    (folder / "data" / "mixed.json").write_text(json.dumps(list(MIXED.values())), encoding="utf-8")
    return folder


def train(data: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str, batch: int = 4) -> Run:
    """Two steps from a golden model."""
    argv = [
        *("--model_name_or_path", "llava-v1.5-tiny", "--data_path", data, "--image_folder", "data"),
        *("--per_device_train_batch_size", str(batch), "--max_steps", "2", "--logging_steps", "1"),
        *("--learning_rate", "1e-3", "--save_strategy", "no", "--dataloader_num_workers", "0"),
    ]
    return run_training([*argv, *flags], folder, monkeypatch)


def test_a_mixed_file_trains_alike_in_all_packings(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    runs = {
        packing: train(
            "data/mixed.json", tmp_path / packing, monkeypatch, "--packing", packing, batch=len(MIXED)
        )
        for packing in ("none", "packed", "shared")
    }
    assert len(runs["none"].losses) == 2
    assert runs["none"].losses[0] - runs["none"].losses[1] > 0.1, "the step must have taught something"
    for packing in ("packed", "shared"):
        assert runs[packing].losses == pytest.approx(runs["none"].losses, abs=LOSS_ATOL)


@pytest.mark.parametrize("name", MIXED)
def test_every_row_of_it_trains_alone(
    name: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    (tmp_path / "one.json").write_text(json.dumps([MIXED[name]]), encoding="utf-8")
    samples = read_samples(tmp_path / "one.json", "data")
    image = MIXED[name].get("image")
    wanted = [image] if isinstance(image, str) else image or []
    assert [Path(path).name for path in samples[0].images] == [Path(path).name for path in wanted]
    example = dataset_of(samples, 512).example(0)
    assert example.encoded.num_images == len(wanted)
    assert sum(label != -100 for label in example.encoded.labels) > 0


def dataset_of(samples: list[Sample], max_length: int) -> ConversationDataset:
    """Samples under the template of LLaVA-1.5, 16 patches a picture."""
    encoding = Encoding(training_template("v1"), golden_tokenizer("nonlegacy"), 16, max_length)
    return ConversationDataset(samples, encoding)


LONG = Sample("long", 0, (), (("human", "Why? " * 80), ("gpt", "So.")))
SHORT = Sample("short", 1, (), (("human", "Why?"), ("gpt", "So.")))
PICTURE = Sample("picture", 2, ("a.png",), (("human", "<image>\nWhy?"), ("gpt", "So.")))


def test_samples_without_a_target_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_long_samples(dataset_of([SHORT, LONG], 80))
    (message,) = [record.getMessage() for record in caplog.records]
    assert "1 of 2 samples have no token of an answer left" in message
    assert "cutting to 80 tokens" in message
    assert "--model_max_length" in message
    assert message.endswith("row 0 (id long)")
    caplog.clear()
    check_long_samples(dataset_of([SHORT, LONG], 2048))
    assert not caplog.records


def test_nothing_to_learn_and_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"1 of 1 samples have no token(.|\n)*row 0 \(id long\)"):
        check_long_samples(dataset_of([LONG], 80))
    with pytest.raises(UsageError, match=r"1 samples cannot be used:\n  row 2 \(id picture\): .*picture"):
        check_long_samples(dataset_of([SHORT, PICTURE], 45))


def test_a_step_without_a_target_has_loss_zero(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original's loss is nan there, and training goes on with it."""
    monkeypatch.chdir(models)
    rows = [
        {"id": sample.sample_id, "conversations": turns(*(text for _, text in sample.turns))}
        for sample in (LONG, SHORT)
    ]
    (tmp_path / "long.json").write_text(json.dumps(rows), encoding="utf-8")
    flags = ("--model_max_length", "80", "--lr_scheduler_type", "constant")
    run = train(str(tmp_path / "long.json"), tmp_path / "out", monkeypatch, *flags, batch=1)
    assert min(run.losses) == 0.0
    assert max(run.losses) > 1.0
    assert all(bool(torch.isfinite(weight).all()) for weight in run.weights.values())
