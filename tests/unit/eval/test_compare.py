"""Paired differences: by question, whatever the order of lines; pictures are drawn; McNemar is exact."""

import random
from math import comb
from pathlib import Path

import pytest

from llava.eval import compare
from llava.eval.evidence import Scored
from tests.unit.eval.result_folders import scored, write_folder


def pairs_of(first: list[float], second: list[float], per_picture: int = 1) -> list[tuple[Scored, Scored]]:
    """Pairs of rows with these values."""
    sides = (scored(values, per_picture=per_picture) for values in (first, second))
    return list(zip(*sides, strict=True))


def test_differences_and_mcnemar_by_hand() -> None:
    found = compare.compare_pairs(pairs_of([1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1, 1, 0]))
    assert found.means == (25, 75 - 12.5 + 12.5)
    assert found.difference.value == pytest.approx(50)
    assert (found.lost, found.gained) == (1, 5)
    assert found.p_value == pytest.approx(2 * (comb(6, 0) + comb(6, 1)) / 2**6)
    assert found.difference.low < 50 < found.difference.high


def test_a_model_against_itself() -> None:
    found = compare.compare_pairs(pairs_of([1, 0, 1], [1, 0, 1]))
    assert (found.difference.value, found.lost, found.gained, found.p_value) == (0, 0, 0, 1)


def test_parts_of_a_question_have_no_mcnemar() -> None:
    found = compare.compare_pairs(pairs_of([0.3, 1], [0.6, 1]))
    assert found.p_value is None
    assert found.difference.value == pytest.approx(15)


def test_questions_of_one_picture_are_drawn_together() -> None:
    rng = random.Random(1)
    gains = [float(rng.random() < 0.4) for _ in range(40)]
    spread = [value for value in gains for _ in range(5)]  # five questions on a picture go the same way
    zeros = [0.0] * len(spread)
    clustered = compare.compare_pairs(pairs_of(zeros, spread, per_picture=5)).difference
    alone = compare.compare_pairs(pairs_of(zeros, spread)).difference
    assert clustered.value == pytest.approx(alone.value)
    wide, narrow = (one.high - one.low for one in (clustered, alone))
    assert 1.8 < wide / narrow < 2.7, "about the root of five"


def run(*flags: object) -> None:
    """The command."""
    compare.main([str(flag) for flag in flags])


def refused(capsys: pytest.CaptureFixture[str], *flags: object) -> str:
    """What the command says when it refuses."""
    with pytest.raises(SystemExit) as ended:
        run(*flags)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    rows = scored([1, 0, 1, 1, 0, 1])
    better = [Scored(row.question_id, 1, row.image, parsed="a") for row in rows]
    write_folder(tmp_path / "a" / "gqa", rows, model_id="before")
    write_folder(tmp_path / "b" / "gqa", rng.sample(better, len(better)), model_id="after")
    run(tmp_path / "a", tmp_path / "b" / "gqa" / "results.json")
    out = capsys.readouterr().out
    assert out.startswith("A: before\nB: after\n\n")
    last = out.splitlines()[-1].split()
    assert last[:8] == ["gqa", "accuracy", "66.7", "%", "100.0", "%", "6", "66.7"]
    assert last[9:12] == ["100.0", "%", "+33.3"]
    assert last[-3:] == ["0", "2", "0.5"]
    run(tmp_path / "a", tmp_path / "b", "--format", "csv", "--out", tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text(encoding="utf-8").startswith("benchmark,figure,A,B,questions")


def test_lines_in_any_order_give_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, others = scored([1, 0, 1, 0, 0, 1], per_picture=2), scored([1, 1, 0, 0, 1, 1], per_picture=2)
    said = []
    for seed in (0, 1):
        for name, values in (("a", rows), ("b", others)):
            folder = tmp_path / f"{name}{seed}"
            write_folder(folder, values, model_id=name)
            file = folder / "scored.jsonl"
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            random.Random(seed).shuffle(lines)
            file.write_text("".join(lines), encoding="utf-8")
        run(tmp_path / f"a{seed}", tmp_path / f"b{seed}")
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_what_only_one_has_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "a" / "1", scored([1, 0, 1]))
    write_folder(tmp_path / "a" / "2", scored([1, 0]), benchmark="pope")
    write_folder(tmp_path / "b", scored([1, 0]))
    run(tmp_path / "a", tmp_path / "b")
    said = capsys.readouterr()
    assert "1 question is scored in one of them only, first 2" in said.err
    assert "pope: in one of them only" in said.err
    assert said.out.splitlines()[-1].split()[6] == "2"


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_folder(tmp_path / "a", scored([1, 0])).parent
    pope = write_folder(tmp_path / "b", scored([1, 0]), benchmark="pope")
    assert "A has gqa, B has pope" in refused(capsys, a, pope)
    changed = write_folder(tmp_path / "c", scored([1, 0]), truth={"truth.json": "2" * 64})
    assert "different contents of truth.json" in refused(capsys, a, changed)
    apart = write_folder(tmp_path / "d", [Scored("other", 1.0)])
    assert "no question in common" in refused(capsys, a, apart)
    write_folder(a / "again", scored([1, 0]))
    assert "two results of gqa" in refused(capsys, a, apart)
    (tmp_path / "d" / "scored.jsonl").unlink()
    assert "scored.jsonl does not exist" in refused(capsys, a / "again", tmp_path / "d")
    (tmp_path / "empty").mkdir()
    assert "holds no results.json" in refused(capsys, a / "again", tmp_path / "empty")
    assert "does not exist" in refused(capsys, a / "again", tmp_path / "nowhere")
