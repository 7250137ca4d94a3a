"""Files for the benchmarks' servers: ids, order, what is missing, repeated or foreign, broken lines."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest

from llava.eval.submissions import gqa, mmbench_sheet, vqav2
from tests.unit.eval.metrics.conftest import Failing, orders, write_lines

ROOT = Path(__file__).resolve().parents[4]
Main = Callable[[list[str]], None]


def main_of(name: str) -> Main:
    """The main function of a script."""
    return runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))["main"]


GQA, MMVET = main_of("convert_gqa_for_eval"), main_of("convert_mmvet_for_eval")
VQAV2, VIZWIZ = main_of("convert_vqav2_for_submission"), main_of("convert_vizwiz_for_submission")
MMBENCH = main_of("convert_mmbench_for_submission")
ROWS = [{"question_id": k, "text": text} for k, text in enumerate(("Yes.", "Two dogs", "the man", "1,000"))]


def read(path: Path) -> object:
    """One JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("main", "name"), [(GQA, "gqa"), (MMVET, "mmvet")])
def test_two_flag_converters(
    main: Main, name: str, tmp_path: Path, refusal: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "new" / f"{name}.json"
    for rows in orders(ROWS):
        main(["--src", str(write_lines(rows, tmp_path / "a.jsonl")), "--dst", str(target)])
        found = read(target)
        if name == "mmvet":
            assert found == {f"v1_{row['question_id']}": row["text"] for row in ROWS}
        else:
            assert sorted(found, key=lambda row: row["questionId"])[0] == {
                "questionId": 0,
                "prediction": "yes",
            }
    again = [*ROWS, {"question_id": "2", "text": "newer"}]
    main(["--src", str(write_lines(again, tmp_path / "a.jsonl")), "--dst", str(target)])
    assert "1 question is answered more than once, first 2; the last answer counts" in caplog.text
    assert len(read(target)) == len(ROWS)
    assert "newer" in target.read_text(encoding="utf-8")
    broken = write_lines([{"question_id": 1}, {"text": "x"}, 3], tmp_path / "a.jsonl")
    told = refusal(main, "--src", broken, "--dst", target)
    assert "3 problems" in told
    assert "line 1, text: is missing" in told
    assert "line 3: found a number" in told
    assert "is empty" in refusal(main, "--src", write_lines([], tmp_path / "a.jsonl"), "--dst", target)
    assert "--dst is missing" in refusal(main, "--src", broken)
    assert "is a folder" in refusal(main, "--src", write_lines(ROWS, broken), "--dst", tmp_path)


def lay_out(folder: Path, rows: list[dict], questions: int = 4) -> list[str]:
    """VQAv2's folders and flags."""
    asked = [{"question_id": k, "image": f"{k}.jpg", "text": "?"} for k in reversed(range(questions))]
    write_lines(asked, folder / "llava_vqav2_mscoco_test2015.jsonl")
    write_lines(rows, folder / "answers" / "sp" / "ck" / "merge.jsonl")
    return ["--dir", str(folder), "--split", "sp", "--ckpt", "ck"]


def test_vqav2_is_in_the_order_of_the_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = set()
    for rows in orders(ROWS):
        VQAV2(lay_out(tmp_path, rows, questions=5))
        upload = (tmp_path / "answers_upload/sp/ck.json").read_text(encoding="utf-8")
        written.add((capsys.readouterr().out, upload))
    ((printed, upload),) = written
    assert printed == "total results: 4, total split: 5, error_line: 0\n"
    assert [(row["question_id"], row["answer"]) for row in json.loads(upload)] == [
        (4, ""), (3, "1000"), (2, "man"), (1, "2 dogs"), (0, "yes"),
    ]  # fmt: skip


def test_what_vqav2_leaves_out_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, refusal: Failing
) -> None:
    flags = lay_out(tmp_path, [*ROWS[:3], {"question_id": 99, "text": "x"}])
    merged = tmp_path / "answers/sp/ck/merge.jsonl"
    with merged.open("a", encoding="utf-8") as file:
        file.write('{"question_id": 3, "te')
    VQAV2(flags)
    assert "line 5, column" in caplog.text
    assert "the line is left out" in caplog.text
    assert "1 question has no answer, first 3; they get an empty one" in caplog.text
    assert "1 answer belongs to no question, first 99; left out" in caplog.text
    merged.write_text("{broken\n", encoding="utf-8")
    assert "1 problem" in refusal(VQAV2, *flags)
    merged.unlink()
    assert "does not exist" in refusal(VQAV2, *flags)
    assert "stands twice" in refusal(VQAV2, *lay_out_twice(tmp_path))


def lay_out_twice(folder: Path) -> list[str]:
    """A question file that has an id twice."""
    flags = lay_out(folder, ROWS)
    write_lines([{"question_id": 1}, {"question_id": "1"}], folder / "llava_vqav2_mscoco_test2015.jsonl")
    return flags


def test_vizwiz_is_complete_or_refused(
    tmp_path: Path, refusal: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [{"question_id": str(k), "image": f"V_{k}.jpg"} for k in (2, 0, 1)]
    target, path = tmp_path / "up" / "load.json", tmp_path / "answers.jsonl"
    flags = [
        "--annotation-file", str(write_lines(asked, tmp_path / "test.jsonl")), "--result-file", str(path),
        "--result-upload-file", str(target),
    ]  # fmt: skip
    assert "2 questions have no answer, first 2, 0" in refusal(
        VIZWIZ, *flags[:2], "--result-file", write_lines(ROWS[1:2], path), *flags[4:]
    )
    assert not target.exists()
    written = set()
    for rows in orders(ROWS[:3]):
        write_lines(rows, path)
        VIZWIZ(flags)
        written.add((capsys.readouterr().out, target.read_text(encoding="utf-8")))
    ((printed, upload),) = written
    assert printed == "total results: 3, total split: 3, error_line: 0\n"
    assert json.loads(upload) == [
        {"image": "V_2.jpg", "answer": "man"}, {"image": "V_0.jpg", "answer": "yes"},
        {"image": "V_1.jpg", "answer": "2 dogs"},
    ]  # fmt: skip


HEADING = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tsource\tl2-category\tcomment\tsplit"


def table(folder: Path, rows: list[str], heading: str = HEADING) -> list[str]:
    """A benchmark file, and the flags."""
    (folder / "ann.tsv").write_text("\n".join([heading, *rows]) + "\n", encoding="utf-8")
    return [
        "--annotation-file", str(folder / "ann.tsv"), "--result-dir", str(folder), "--upload-dir",
        str(folder / "up"), "--experiment", "mine",
    ]  # fmt: skip


def cells(folder: Path) -> list[list[object]]:
    """The written sheet."""
    book = openpyxl.load_workbook(folder / "up" / "mine.xlsx")
    return [list(row) for row in book["Sheet1"].iter_rows(values_only=True)]


def line(index: int, question: str = "Q", first: str = "a") -> str:
    """A row of the benchmark."""
    return "\t".join([str(index), question, "", first, "b", "", "", "A", "c", "aGk=", "s", "l2", "c", "dev"])


def test_mmbench_sheets_hold_texts_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flags = table(tmp_path, [line(3, '"two\nlines"', "=1+1"), line(1, "None", "NA"), line(2)])
    said = [
        {"question_id": 1, "text": "A\x07"},
        {"question_id": "3", "text": "=B"},
        {"question_id": 9, "text": "A"},
    ]
    for rows in orders(said):
        write_lines(rows, tmp_path / "mine.jsonl")
        MMBENCH(flags)
        assert cells(tmp_path) == [
            ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"],
            [3, "two\nlines", "=1+1", "b", None, None, "=B", "A", "dev"],
            [1, "None", "NA", "b", None, None, "A", "A", "dev"],
            [2, "Q", "a", "b", None, None, None, "A", "dev"],
        ]
    sheet = openpyxl.load_workbook(tmp_path / "up" / "mine.xlsx")["Sheet1"]
    assert (sheet["C2"].data_type, sheet["G2"].data_type) == ("s", "s"), "no formulas"
    assert "1 question has no answer, first 2; their cells stay empty" in caplog.text
    assert "1 answer belongs to no question, first 9; left out" in caplog.text


def test_letters_of_later_rounds_are_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = [{"question_id": 1, "round_id": k, "text": "ABCD"[k]} for k in (2, 0, 1)]
    write_lines(said, tmp_path / "mine.jsonl")
    MMBENCH(table(tmp_path, [line(1)]))
    assert cells(tmp_path)[1][6] == "A"
    assert "2 answers of later rounds are left out" in caplog.text


def test_broken_benchmark_files_are_told(tmp_path: Path, refusal: Failing) -> None:
    write_lines(ROWS, tmp_path / "mine.jsonl")
    told = refusal(MMBENCH, *table(tmp_path, [line(1), "2\tshort"]))
    assert "line 3: found 2 cells; 10 or more were wanted" in told
    told = refusal(MMBENCH, *table(tmp_path, ["1\tx"], "number\tquestion"))
    assert "no column index, image, A; the header has number, question" in told
    assert "1 id stands twice, first 1" in refusal(MMBENCH, *table(tmp_path, [line(1), line(1)]))
    assert "no rows below its header" in refusal(MMBENCH, *table(tmp_path, []))


def test_without_openpyxl_the_remedy_is_told(
    tmp_path: Path, refusal: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    monkeypatch.delitem(sys.modules, "llava.eval.sheet", raising=False)
    assert 'pip install -e ".[report]"' in refusal(MMBENCH, *table(tmp_path, [line(1)]))


def test_sheets_without_answers_of_people_keep_their_columns() -> None:
    sheet = mmbench_sheet(["index", "question", "A"], [{"index": "x", "question": "", "A": "1"}], {"x": "A"})
    assert sheet == [["index", "question", "A", "prediction"], ["x", None, "1", "A"]]


def test_pure_conversions() -> None:
    assert gqa([("q", "A Dog..")]) == [{"questionId": "q", "prediction": "a dog"}]
    assert vqav2([1, "2"], {"2": "Two"}) == [
        {"question_id": 1, "answer": ""},
        {"question_id": "2", "answer": "2"},
    ]
