"""One table of all results below a folder."""

import csv
import io
import json
import random
from pathlib import Path

import pytest

from llava.eval import collect
from llava.eval.evidence import Scored
from llava.eval.results_file import Figure
from tests.unit.eval.result_folders import scored, write_folder


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Three results of two checkpoints."""
    rows = [*scored([1, 1, 1, 0]), Scored("x", 0, missing=True), Scored("y", 0)]
    write_folder(tmp_path / "gqa" / "answers" / "mine", rows, model_id="mine")
    write_folder(tmp_path / "pope" / "answers" / "mine", scored([1, 0]), benchmark="pope", model_id="mine")
    write_folder(tmp_path / "gqa" / "answers" / "other", scored([1, 0]), split="testdev")
    return tmp_path


def test_the_table_holds_every_result_with_its_evidence(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collect.main([str(shelf)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [
        ["gqa", "mine"], ["gqa", "(testdev)"], ["pope", "mine"],
    ]  # fmt: skip
    assert lines[2].split() == [
        "gqa", "mine", "accuracy", "50.0", "%", "18.8", "to", "81.2", "6", "16.7", "%", "1",
    ]  # fmt: skip
    assert "other" in lines[3], "without a record of the run the folder tells whose answers they are"


def test_csv_has_a_number_per_cell(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collect.main([str(shelf), "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["benchmark"], row["split"], row["checkpoint"]) for row in rows] == [
        ("gqa", "", "mine"), ("gqa", "testdev", "other"), ("pope", "", "mine"),
    ]  # fmt: skip
    assert float(rows[0]["value"]) == 50
    assert float(rows[0]["low"]) < 20
    assert (rows[0]["asked"], rows[0]["unparsable"], rows[0]["missing"]) == ("6", "1", "1")
    assert rows[0]["file"] == "gqa/answers/mine/results.json"


def test_all_figures_and_a_file(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sums = {"perception": Figure(1510.7, None, None, 4, "points", None)}
    write_folder(shelf / "MME", scored([1, 1]), benchmark="mme", more=sums)
    collect.main([str(shelf), "--all", "--format", "markdown", "--out", str(shelf / "out" / "scores.md")])
    assert capsys.readouterr().out == ""
    text = (shelf / "out" / "scores.md").read_text(encoding="utf-8")
    assert "| mme | MME | perception | 1510.7 |  | 4 |  |  |" in text
    assert len(text.splitlines()) == 2 + 5, "both figures of MME, one of the others"


def test_two_results_under_one_name_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("hot", "cold"):
        write_folder(tmp_path / name, scored([1, 0]), model_id="mine")
    collect.main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[1:3] for line in lines] == [["mine", "(cold)"], ["mine", "(hot)"]]


def test_the_order_of_files_and_lines_changes_nothing(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = collect.find_results(shelf)
    random.Random(0).shuffle(files)
    assert [one.file for one in collect.read_all(files)] == [
        one.file for one in collect.read_all(sorted(files))
    ]


def test_a_damaged_file_is_left_out_and_told(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shelf / "pope" / "answers" / "mine" / "results.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | {"headline": "none", "figures": 3}), encoding="utf-8")
    collect.main([str(shelf)])
    said = capsys.readouterr()
    assert "pope" not in said.out
    assert f"left out: {file}" in said.err
    file.write_text("", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        collect.main([str(file.parent)])
    assert ended.value.code == 2
    assert "is empty" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "told"), [("", "holds no results.json"), ("none", "is no folder")])
def test_nothing_to_show(name: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        collect.main([str(tmp_path / name)])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
