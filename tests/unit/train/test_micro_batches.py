"""How a batch is cut into parts that are computed one after the other. That the step stays the same is tested
in test_fast_modes.py, through the recipe.
"""

from types import SimpleNamespace

import pytest
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import UsageError
from llava.processing import Encoded
from llava.train import micro_batches
from llava.train.arguments import TrainingArguments, divisors, parse_arguments
from llava.train.collator import PackingCollator
from llava.train.memory import StepShape
from llava.train.micro_batches import Cut, choose_cut, cut_into, cut_text, cuts, use_cut
from llava.train.packing import Example
from tests.parity.golden import golden_folder
from tests.tiny import picture, tiny_config

REQUIRED = [
    *("--model_name_or_path", str(golden_folder("llava-v1.5-tiny")), "--output_dir", "out"),
    *("--data_path", "train.json", "--per_device_train_batch_size", "16"),
]


def arguments(*flags: str) -> tuple:
    """Model and training arguments of a run on one CPU with batches of 16."""
    model_args, _, args = parse_arguments([*REQUIRED, *flags])
    return model_args, args


def questions(per_picture: int, *, pictures: int, image_tokens: int = 30) -> list[Example]:
    """Samples of 10 tokens behind a picture, equal in length."""
    prefix = [1, *[IMAGE_TOKEN_INDEX] * image_tokens]
    found = []
    for number in range(pictures):
        for turn in range(per_picture):
            ids = [*prefix, *range(3, 13)]
            labels = [IGNORE_INDEX] * (len(prefix) + 5) + ids[len(prefix) + 5 :]
            found.append(Example(f"{number}-{turn}", Encoded(ids, labels, len(prefix), 1), (f"{number}",)))
    return found


def on(device: str, args: TrainingArguments, **changes: object) -> SimpleNamespace:
    """The arguments as they would be on another device or with other ranks."""
    known = (
        "bf16",
        "micro_batch_size",
        "auto_checkpointing",
        "train_batch_size",
        "gradient_accumulation_steps",
    )
    values = {name: getattr(args, name) for name in known} | {"world_size": 1, "deepspeed": None}
    return SimpleNamespace(**values | {"device": torch.device(device)} | changes)


def test_a_part_keeps_at_least_so_many_tokens() -> None:
    collate = PackingCollator("none", picture)
    found = cuts(questions(1, pictures=32), collate, 16, least=100)
    assert [cut.size for cut in found] == [16, 8, 4], "a sample has 41 tokens"
    assert [cut.tokens for cut in found] == [656, 328, 164]
    assert found[-1].largest == StepShape(4, 41, 4, 20)


def test_pictures_are_not_cut_between_their_questions() -> None:
    examples = questions(4, pictures=8)
    shared = cuts(examples, PackingCollator("shared", picture), 16, least=1)
    assert [cut.size for cut in shared] == [16, 8, 4], "2 and 1 would compute every prefix more than once"
    alone = cuts(examples, PackingCollator("none", picture), 16, least=1)
    assert [cut.size for cut in alone] == divisors(16)


def test_kept_features_are_noted_and_no_picture_is_opened() -> None:
    def never(path: str) -> torch.Tensor:
        raise AssertionError(path)

    shape = cut_into(questions(1, pictures=4), PackingCollator("shared", never), 4).largest
    assert (shape.pictures, shape.features_kept) == (4, False)
    kept = PackingCollator("shared", never, vision_features=never)  # type: ignore[arg-type]
    assert cut_into(questions(1, pictures=4), kept, 4).largest.features_kept


def test_a_cpu_takes_the_smallest_parts_that_cost_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "CPU_TOKENS", 150)
    model_args, args = arguments()
    collate = PackingCollator("shared", picture)
    chosen = choose_cut(questions(1, pictures=32), collate, tiny_config(), model_args, args, room=0)
    assert chosen.size == 4
    assert cut_text(chosen, 16).startswith("Of 16 samples of a batch 4 are computed at a time")
    use_cut(chosen, args)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (4, 4)


def test_a_cpu_keeps_batches_whole_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "CPU_TOKENS", 1)
    model_args, args = arguments("--bf16", "True")
    examples, collate = questions(1, pictures=32), PackingCollator("none", picture)
    assert choose_cut(examples, collate, tiny_config(), model_args, args, room=0).size == 16


@pytest.mark.parametrize("changes", [{"world_size": 2}, {"deepspeed": "zero2.json"}])
def test_several_ranks_keep_the_whole_batch(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batches, "CPU_TOKENS", 1)
    model_args, args = arguments()
    examples, collate = questions(1, pictures=32), PackingCollator("none", picture)
    options: dict = {"room": 0}
    assert choose_cut(examples, collate, tiny_config(), model_args, args, **options).size == 1
    several = on("cpu", args, **changes)
    assert choose_cut(examples, collate, tiny_config(), model_args, several, **options).size == 16  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("room", "checkpointing", "wanted"),
    [
        (10**9, "auto", 16),  # all fits
        (400, "auto", 8),  # a half fits: nothing is computed twice
        (1, "auto", 16),  # nothing fits: the whole batch with checkpointing
        (400, "True", 16),  # checkpointing is wanted anyway
    ],
)
def test_a_gpu_takes_the_largest_parts_that_fit(
    room: int, checkpointing: str, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def estimate(config: object, shape: StepShape, model_args: object, args: object, **options: object):
        seen.append((shape.rows, args.gradient_accumulation_steps, options))  # type: ignore[attr-defined]
        return SimpleNamespace(total=shape.rows * shape.length)

    monkeypatch.setattr(micro_batches, "CUDA_TOKENS", 100)
    monkeypatch.setattr(micro_batches, "estimate_run", estimate)
    model_args, args = arguments("--gradient_checkpointing", checkpointing, "--packing", "none")
    examples, collate = questions(1, pictures=32), PackingCollator("none", picture)
    gpu = on("cuda", args)
    chosen = choose_cut(examples, collate, tiny_config(), model_args, gpu, room=room)  # type: ignore[arg-type]
    assert chosen.size == wanted
    assert gpu.train_batch_size == 16, "trying changes no flag"
    assert all(rows * accumulation == 16 for rows, accumulation, _ in seen)
    assert all(options == {"checkpointing": False} for *_, options in seen)


def test_what_cannot_be_estimated_fits_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("looks at numbers")

    monkeypatch.setattr(micro_batches, "CUDA_TOKENS", 100)
    monkeypatch.setattr(micro_batches, "estimate_run", broken)
    model_args, args = arguments()
    gpu = on("cuda", args)
    examples, collate = questions(1, pictures=32), PackingCollator("none", picture)
    assert choose_cut(examples, collate, tiny_config(), model_args, gpu, room=10**12).size == 16  # type: ignore[arg-type]


def test_a_given_number_is_taken() -> None:
    model_args, args = arguments("--micro_batch_size", "2")
    examples, collate = questions(4, pictures=8), PackingCollator("shared", picture)
    chosen = choose_cut(examples, collate, tiny_config(), model_args, args, room=0)
    assert chosen.size == 2
    use_cut(chosen, args)
    assert (args.train_batch_size, args.gradient_accumulation_steps) == (2, 8)


def test_a_whole_batch_changes_no_flag() -> None:
    _, args = arguments("--gradient_accumulation_steps", "3")
    whole = Cut(16, StepShape(16, 41, 16, 80), 656)
    use_cut(whole, args)
    assert (args.train_batch_size, args.gradient_accumulation_steps) == (16, 3)
    assert cut_text(whole, 16) == "All 16 samples of a batch are computed together."


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", "'0'; it must be auto or a number of samples"),
        ("few", "'few'; it must be auto or a number of samples"),
        ("-4", "'-4'; it must be"),
        ("3", "3 does not divide --per_device_train_batch_size 16; use one of 16, 8, 4, 2, 1"),
        ("32", "32 does not divide --per_device_train_batch_size 16"),
    ],
)
def test_a_wrong_number_is_told(value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arguments("--micro_batch_size", value)
