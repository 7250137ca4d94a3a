"""Every fast way of training, through the whole recipe, beside the slow one: losses, gradient norms, weights.

The slow one has a row per sample, all pairs of attention, pixels, and the whole batch in one piece. Data are
pictures that are asked about several times, and text without a picture.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

from llava.model import llava
from tests.parity.training import run_training, working_folder

STEPS, BATCH = 3, 8
MODEL = "llava-v1.5-tiny"
SLOW = ("--packing", "none", "--attn_implementation", "sdpa", "--cache_vision_features", "off")
METHODS = {
    "lora": ("--lora_enable", "True", "--lora_r", "4", "--lora_dropout", "0"),
    "full": (),
}
FAST = {
    "none": (),
    "packed": ("--packing", "packed"),
    "shared": ("--packing", "shared", "--cache_vision_features", "off"),
    "shared, short rows": ("--packing", "shared", "--pack_tokens", "1"),
    "shared, long rows": ("--packing", "shared", "--pack_tokens", "4096"),
    "shared, all pairs": ("--packing", "shared", "--attn_implementation", "sdpa"),
    "kept features": ("--packing", "shared", "--cache_vision_features", "memory"),
    "shared, few at a time": ("--packing", "shared", "--micro_batch_size", "2"),
    "packed, one at a time": ("--packing", "packed", "--micro_batch_size", "1"),
    "kept, checkpointed": ("--cache_vision_features", "memory", "--gradient_checkpointing", "True"),
}
SPLITS = {1: BATCH, 2: BATCH // 2}
"""Accumulation steps -> samples of each."""
LOSS_ATOL = 3e-6  # fp32, of losses up to 6.7: worst seen 9.5e-7
NORM_RTOL = 2e-6  # worst seen 3.7e-7
WEIGHT_ATOL = 5e-7  # after three steps of SGD at 0.1, so gradients: worst seen 1.2e-7


@dataclass(frozen=True)
class Result:
    """Of each step, and the trained weights at the end."""

    losses: list[float]
    norms: list[float]
    weights: dict[str, Tensor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden models, and a data file with four questions about each of four pictures, and four texts."""
    folder = working_folder(tmp_path_factory.mktemp("models"))
    pictures = ("exact56.png", "mid150x100.png", "odd57x55.png", "big240x180.png")
    rows = [
        {
            "id": f"{picture}-{number}",
            "image": f"images/{picture}",
            "conversations": talk(
                f"<image>\nWhat is part {number} of it?", f"The {'very ' * number}red one."
            ),
        }
        for picture in pictures
        for number in range(4)
    ]
    rows += [{"id": f"text-{n}", "conversations": talk(f"Say {n}.", f"It is {n}.")} for n in range(4)]
    (folder / "data" / "mixed.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def talk(question: str, answer: str) -> list[dict[str, str]]:
    """One turn of each."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def train(out: Path, monkeypatch: pytest.MonkeyPatch, method: str, *flags: str, pieces: int = 1) -> Result:
    """A run over the mixed data, every step in `pieces` micro-batches."""
    argv = [
        *("--model_name_or_path", MODEL, "--data_path", "data/mixed.json", "--image_folder", "data"),
        *(
            "--max_steps",
            str(STEPS),
            "--learning_rate",
            "1e-1",
            "--logging_steps",
            "1",
            "--save_strategy",
            "no",
        ),
        *("--dataloader_num_workers", "0", "--per_device_train_batch_size", str(SPLITS[pieces])),
        *("--optim", "sgd", "--gradient_accumulation_steps", str(pieces), *METHODS[method], *flags),
    ]
    run = run_training(argv, out, monkeypatch)
    history = json.loads((out / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return Result(run.losses, [row["grad_norm"] for row in history if "grad_norm" in row], run.weights)


@pytest.fixture(scope="module")
def slow(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """The slow way, by method."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(models)
        return {
            method: train(tmp_path_factory.mktemp(method) / "out", patch, method, *SLOW) for method in METHODS
        }


@pytest.mark.parametrize("pieces", SPLITS)
@pytest.mark.parametrize("way", FAST)
@pytest.mark.parametrize("method", METHODS)
def test_fast_ways_train_as_the_slow_one(
    method: str,
    way: str,
    pieces: int,
    slow: dict[str, Result],
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(models)
    monkeypatch.setattr(llava, "LONG_ROW", 1)  # attention in two parts on these short rows too
    wanted = slow[method]
    found = train(tmp_path / "out", monkeypatch, method, *FAST[way], pieces=pieces)
    assert len(wanted.losses) == STEPS
    assert max(wanted.losses) - min(wanted.losses) > 1e-2, "the run must change the model"
    assert found.losses == pytest.approx(wanted.losses, abs=LOSS_ATOL, rel=0)
    assert found.norms == pytest.approx(wanted.norms, rel=NORM_RTOL)
    assert found.weights.keys() == wanted.weights.keys()
    worst = max(float((found.weights[key] - wanted.weights[key]).abs().max()) for key in wanted.weights)
    assert worst <= WEIGHT_ATOL
