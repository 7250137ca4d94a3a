"""The training benchmark: all modes get the same samples and weights and train alike; counts are right."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import tables, train
from benchmarks.flops import peak_of, step_flops
from benchmarks.shapes import SHAPES, Shape, Transformer, config_of, fill_randomly
from benchmarks.training_run import Run, Task, measure
from benchmarks.workload import Workload, count, merged
from llava.constants import IGNORE_INDEX
from llava.errors import UsageError
from llava.model.attention import may_attend
from llava.model.builder import new_model
from llava.train.collator import PackingCollator
from llava.train.packing import plan_packs

TINY = Shape(
    Transformer(64, 2, 4, 96, 2), Transformer(32, 2, 2, 64), vocabulary=90, image_size=16, patch_size=8
)
WORK = Workload(
    pictures=2, questions=3, question_tokens=9, answer_tokens=4, num_patches=4, vocabulary=90, seed=1
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "tiny", TINY)


def task(mode: str, method: str = "lora") -> Task:
    """Two steps of six samples."""
    return Task(
        shape="tiny",
        mode=mode,
        method=method,
        pictures=2,
        questions=3,
        question_tokens=9,
        answer_tokens=4,
        steps=1,
        warmup=1,
        bf16=False,
        lora_r=4,
        threads=1,
    )


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
def test_modes_train_alike(method: str) -> None:
    runs = {mode: [vars(measure(task(mode, method)))] for mode in train.MODES}
    found = train.compare(runs, bf16=False)
    assert found["loss"] <= train.SAME_RTOL["loss"]
    assert all(len(run[0]["seconds"]) == 1 and run[0]["seconds"][0] > 0 for run in runs.values())
    losses = runs["hf"][0]["losses"]
    assert len(losses) == 2
    assert abs(losses[0] - losses[1]) > 1e-3
    assert runs["none"][0]["positions"] == runs["hf"][0]["positions"] > runs["shared"][0]["positions"]
    assert runs["none"][0]["padding"] == runs["hf"][0]["padding"] > 0


def test_modes_that_differ_are_not_compared() -> None:
    def run(loss: float) -> list[dict]:
        return [vars(Run(losses=[2.0, loss], gradient_norms=[1.0, 1.0]))]

    assert train.compare({"none": run(1.9), "shared": run(1.9), "merged": run(1.0)}, bf16=False)["loss"] == 0
    with pytest.raises(UsageError, match="do not train alike: loss differs by"):
        train.compare({"none": run(1.9), "shared": run(1.901)}, bf16=False)
    with pytest.raises(UsageError, match="do not train alike"):
        train.compare({"none": run(1.9), "shared": run(float("nan"))}, bf16=False)


def test_counts_are_those_of_the_shared_rows() -> None:
    examples = WORK.step(0)
    packs = plan_packs(examples, "shared")
    counts = count(examples)
    assert counts.samples == len(examples) == 6
    assert counts.pictures == 2
    assert counts.unique_tokens == sum(len(pack.input_ids) for pack in packs)
    assert counts.targets == sum(len(pack.targets) for pack in packs)
    pairs = 0
    for pack in packs:
        places = range(len(pack.input_ids))
        pairs += sum(
            may_attend(query, key, pack.group_ids, pack.branch_ids) for query in places for key in places
        )
    assert counts.unique_pairs == pairs


def test_steps_differ_and_come_again() -> None:
    assert WORK.step(0) == WORK.step(0)
    assert WORK.step(0)[0].encoded.input_ids != WORK.step(1)[0].encoded.input_ids
    lengths = [len(example.encoded.input_ids) for example in WORK.step(0)]
    assert len(set(lengths)) > 1, "padding must occur"


def test_merged_conversations_hold_all_targets() -> None:
    examples = WORK.step(0)
    joined = merged(examples)
    assert len(joined) == 2

    def targets(some: list) -> list[int]:
        return [label for one in some for label in one.encoded.labels if label != IGNORE_INDEX]

    assert targets(joined) == targets(examples)
    assert all(len(one.encoded.input_ids) == len(one.encoded.labels) for one in joined)


def linear_flops(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> int:
    """FLOPs of a forward pass in products with weights, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**batch)
    counts = counter.get_flop_counts()["Global"]
    others = [number for name, number in counts.items() if "attention" in str(name) or "conv" in str(name)]
    assert others, "the tower's convolution is counted (attention only where torch knows its kernel)"
    return counter.get_total_flops() - sum(others)


def test_flops_are_those_that_are_done() -> None:
    """One picture in one row without padding. Torch counts attention over all pairs and the tower's class
    token; the formula does not, and has the step's factors 2 (language) and 3 (projector).
    """
    examples = replace(WORK, questions=1, pictures=1).step(0)
    counts = replace(count(examples), unique_pairs=0.0)
    model = new_model(config_of(TINY), dtype=torch.float32, attn_implementation="sdpa")
    fill_randomly(model, seed=0, device=torch.device("cpu"))
    batch = PackingCollator("none", lambda _: torch.zeros(3, 16, 16))(examples)
    patches, width, vision = TINY.num_patches, TINY.text.width, TINY.vision
    layers_of_tower = vision.layers * (4 * vision.width**2 + 2 * vision.width * vision.inner)
    tower = 2 * layers_of_tower * patches + 4 * vision.width * vision.layers * patches**2
    projector = 2 * patches * (vision.width * width + width**2)
    step = step_flops(TINY, counts, num_patches=patches, lora=True)
    language = (step - tower - 3 * projector) / 2
    assert linear_flops(model, batch) == language + projector + 2 * layers_of_tower * (patches + 1)


def test_full_training_costs_more_than_lora() -> None:
    counts = count(WORK.step(0))
    lora, full = (step_flops(TINY, counts, num_patches=4, lora=choice) for choice in (True, False))
    assert lora < full < 1.5 * lora
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of(None) is None
    assert peak_of("some other card") is None


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--mode", "none,fast"], "'fast'; known: none, packed"),
        (["--qa-per-image", "0"], "below 1"),
        (["--runs", "0"], "--runs is 0"),
        (["--qa-per-imag", "1"], "did you mean --qa-per-image"),
    ],
)
def test_wrong_flags_are_named(flags: list[str], complaint: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        train.main(flags)
    assert complaint in capsys.readouterr().err


def test_tables_of_the_page_are_those_of_the_results() -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.PLACE.findall(page)
    assert tables.page_with_tables(page) == page, "run python -m benchmarks.tables"


def test_a_table_without_a_result_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "TABLES", {"train": lambda record: f"table of {record['threads']}"})
    assert "\nNot measured.\n" in tables.rendered("train-new")
    record = {
        "command": "python -m x",
        "machine": {"gpu": None, "processor": "P", "cores": 9},
        "threads": 2,
        "commit": "c",
        "date": "d",
        "versions": {"torch": "1", "transformers": "2"},
    }
    (tmp_path / "train-new.json").write_text(json.dumps(record))
    page = f"before\n{tables.rendered('train-new')}\nafter\n"
    assert "P, 2 threads; torch 1, transformers 2; commit c, d\n\ntable of 2\n" in page
    (tmp_path / "train-new.json").write_text(json.dumps(record | {"threads": 3}))
    assert tables.page_with_tables(page) == page.replace("table of 2", "table of 3").replace("P, 2", "P, 3")
    with pytest.raises(UsageError, match="'other'; its name must begin with one of train"):
        tables.rendered("other")
