"""Figures with intervals, the evidence line, and the two files that a scorer writes."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.errors import UsageError
from llava.eval import evidence
from llava.eval.evidence import bootstrap_figure, bootstrap_sums, evidence_line, figure, publish
from llava.eval.intervals import wilson
from llava.eval.results_file import Figure, read_results
from llava.eval.scored_file import Scored, read_scored
from llava.records import DataError

ROWS = [Scored(str(k), k % 3 / 2, image=f"{k // 4}.png", parsed="x") for k in range(40)]
"""Ten pictures with four questions each, worth 0, 1/2 and 1 in turn."""


def mean(rows: list[Scored]) -> float:
    return 100 * sum(row.value for row in rows) / len(rows)


def test_wilson_where_each_picture_has_one_question() -> None:
    rows = [Scored(str(k), float(k < 47), image=f"{k}.png", parsed="yes") for k in range(60)]
    found, wanted = figure(rows), wilson(47, 60)
    assert (found.value, found.low, found.high) == pytest.approx(
        (100 * wanted.value, 100 * wanted.low, 100 * wanted.high)
    )
    assert (found.n, found.unit, found.interval) == (60, "percent", "Wilson")


@pytest.mark.parametrize(
    "rows",
    [ROWS, [replace(row, value=0.25 * (k % 5)) for k, row in enumerate(ROWS)]],
    ids=["shared pictures", "soft scores"],
)
def test_bootstrap_elsewhere(rows: list[Scored]) -> None:
    found = figure(rows)
    assert found.interval == "bootstrap over pictures"
    assert found.value == pytest.approx(mean(rows))
    assert found.low < found.value < found.high


def test_interval_grows_when_answers_about_a_picture_agree() -> None:
    alone = [Scored(str(k), float(k % 2), parsed="x") for k in range(200)]
    together = [replace(row, image=f"{int(row.value)}_{k // 20}") for k, row in enumerate(alone)]
    width = [found.high - found.low for found in map(figure, (alone, together))]
    assert width[1] > 2 * width[0]


def test_sums_agree_with_the_statistic_of_rows() -> None:
    slow = bootstrap_figure(ROWS, mean)
    fast = bootstrap_sums(ROWS, lambda row: (row.value, 1.0), lambda sums: 100 * sums[0] / sums[1])
    assert (slow.value, slow.low, slow.high) == pytest.approx((fast.value, fast.low, fast.high), abs=1e-9)
    assert (slow.n, slow.interval) == (fast.n, fast.interval)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(len(ROWS))))
def test_order_of_rows_never_matters(order: list[int]) -> None:
    rows = [ROWS[k] for k in order]
    assert figure(rows) == figure(ROWS)
    assert bootstrap_figure(rows[:9], mean) == bootstrap_figure(sorted(rows[:9], key=str), mean)


def test_draws_that_all_agree_have_an_interval_all_the_same() -> None:
    rows = [replace(row, value=1.0) for row in ROWS]
    found = figure(rows)
    assert found.value == 100
    assert found.high == 100
    assert found.low == pytest.approx(100 * wilson(10, 10).low)
    points = bootstrap_figure(rows, lambda rows: 200.0, unit="points")
    assert (points.low, points.high, points.interval) == (None, None, None)
    assert "(no interval)" in evidence_line(points, rows)


def test_draws_without_a_number_do_not_count() -> None:
    rows = [Scored("1", 1.0, "a", "rare", "x"), *[replace(row, group="common") for row in ROWS[4:12]]]

    def rare(sums: np.ndarray) -> np.ndarray:
        return 100 * sums[0] / sums[1]

    found = bootstrap_sums(rows, lambda row: (row.value * (row.group == "rare"), row.group == "rare"), rare)
    assert found.value == 100
    assert found.low is not None


def test_no_rows_are_refused() -> None:
    for make in (figure, lambda rows: bootstrap_figure(rows, mean)):
        with pytest.raises(ValueError, match="at least one"):
            make([])


def test_evidence_line() -> None:
    rows = [Scored(str(k), float(k < 47), image=f"{k}.png", parsed="yes") for k in range(60)]
    rows[59] = replace(rows[59], parsed=None)
    assert evidence_line(figure(rows), rows) == (
        "Evidence: n=60, 78.3 % (95 % interval 66.4 to 86.9, Wilson), 1.7 % unparsable, 0 missing\n"
    )
    rows[58] = replace(rows[58], parsed=None, missing=True)
    points = Figure(1510.66, 1480.0, 1540.04, 60, "points", "bootstrap over pictures")
    assert evidence_line(points, rows) == (
        "Evidence: n=60, 1510.7 points (95 % interval 1480.0 to 1540.0, bootstrap over pictures), "
        "1.7 % unparsable, 1 missing\n"
    )


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """An answers file, a truth file beside it, and what the run was."""
    (tmp_path / "truth.json").write_text("{}")
    path = tmp_path / "merge.jsonl"
    path.write_text("{}\n")
    return path


def publish_rows(answers: Path, folder: Path | None, rows: list[Scored]) -> None:
    truth = [answers.parent / "truth.json"]
    publish("toy", {"accuracy": figure(rows)}, "accuracy", rows, answers=answers, truth=truth,
            results_dir=folder, split="val", extra={"rounds": 2})  # fmt: skip


def test_files_hold_what_was_scored(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = {"model_id": "tiny", "prompt": "USER: <image>\n{question} ASSISTANT:", "weights": "ab"}
    (answers.parent / "merge.jsonl.run.json").write_text(json.dumps(run))
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    publish_rows(answers, answers.parent / "new" / "folder", shuffled)
    assert capsys.readouterr().out == evidence_line(figure(ROWS), ROWS)
    folder = answers.parent / "new" / "folder"
    row = json.loads((folder / "results.json").read_text())
    assert (row["format"], row["benchmark"], row["split"], row["headline"]) == (1, "toy", "val", "accuracy")
    assert row["questions"] == {"asked": 40, "missing": 0, "unparsable": 0, "unparsable_share": 0}
    assert row["answers"] == {"file": "merge.jsonl", "sha256": evidence.sha256(answers)}
    assert list(row["truth"]) == ["truth.json"]
    assert row["run"] == run
    assert row["prompt"] == run["prompt"]
    assert row["versions"]["llava"]
    assert row["extra"] == {"rounds": 2}
    assert read_scored(folder / "scored.jsonl") == ROWS
    read = read_results(folder / "results.json")
    assert read.figures["accuracy"].value == pytest.approx(figure(ROWS).value, abs=1e-4)


def test_files_do_not_depend_on_the_order_of_rows(answers: Path) -> None:
    folders = [answers.parent / name for name in "ab"]
    for seed, folder in enumerate(folders):
        publish_rows(answers, folder, random.Random(seed).sample(ROWS, len(ROWS)))
    for name in ("results.json", "scored.jsonl"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_without_a_folder_nothing_is_written(answers: Path) -> None:
    before = set(answers.parent.rglob("*"))
    publish_rows(answers, None, ROWS)
    assert set(answers.parent.rglob("*")) == before


def test_no_file_about_the_run_is_null_and_a_damaged_one_an_error(answers: Path) -> None:
    publish_rows(answers, answers.parent, ROWS)
    row = json.loads((answers.parent / "results.json").read_text())
    assert (row["run"], row["prompt"]) == (None, None)
    (answers.parent / "merge.jsonl.run.json").write_text('{"model_id": ')
    with pytest.raises(DataError, match="cut off"):
        publish_rows(answers, answers.parent, ROWS)


def test_a_folder_that_cannot_be_made_is_told(answers: Path) -> None:
    with pytest.raises(UsageError, match="could not be written"):
        publish_rows(answers, answers / "below_a_file", ROWS)


def test_hash_of_a_folder_is_of_its_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "a.jpg").write_text("1")
    first = evidence.sha256(tmp_path)
    (tmp_path / "a.jpg").write_text("2")
    assert evidence.sha256(tmp_path) == first
    (tmp_path / "a.txt").write_text("2")
    assert evidence.sha256(tmp_path) != first


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[1]", "a number"),
        ('{"value": 1}', "line 1, question_id"),
        ('{"question_id": "1", "value": 2}', "from 0 to 1"),
        ('{"question_id": "1", "value": true}', "from 0 to 1"),
        ('{"question_id": "1", "value": 1, "missing": 0}', "true or false"),
        ('{"question_id": "1", "value": 1, "image": 3}', "a text or null"),
        ('{"question_id": "1", "value": 1}\n{"question_id": 1, "value": 1}', "1 id stands twice"),
        ("", "is empty"),
    ],
)
def test_broken_scored_files_are_told(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(DataError, match=told):
        read_scored(path)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format", 2, "format"),
        ("benchmark", None, "benchmark"),
        ("headline", "f1", "no such figure"),
        ("figures", {"accuracy": {"value": 1}}, "figures, accuracy"),
        ("figures", {"accuracy": {"value": "1", "low": None, "high": None, "n": 1, "unit": "percent",
                                  "interval": None}}, "numbers were wanted"),
    ],
)  # fmt: skip
def test_broken_results_are_told(answers: Path, key: str, value: object, told: str) -> None:
    publish_rows(answers, answers.parent, ROWS)
    path = answers.parent / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match=told):
        read_results(path)
