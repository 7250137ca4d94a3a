"""MMBench: accuracy and circular accuracy over rows and rounds, in any order of lines."""

import json
from pathlib import Path

import pytest

from llava.eval import eval_mmbench
from llava.eval.metrics.mmbench import Row, judge, question_of
from llava.eval.mmbench_questions import Item, questions_of
from tests.unit.eval.metrics.conftest import Failing, orders, write_lines

COLUMNS = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "image")
ROWS = (
    ("3", "Which colour?", "", "red", "blue", "green", "white", "B", "colour", "attribute", "aGk="),
    ("5", "Is it there?", "", "yes", "no", "", "", "A", "presence", "relation", "aGo="),
    ("8", "How many?", "", "one", "two", "three", "", "C", "number", "relation", "aGk="),
)
TURNED_ROW = ("1000005", "Is it there?", "", "no", "yes", "", "", "B", "presence", "relation", "aGo=")


def table(tmp_path: Path, *rows: tuple[str, ...], columns: tuple[str, ...] = COLUMNS) -> Path:
    """The benchmark's file."""
    path = tmp_path / "mmbench_dev.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in (columns, *rows)), encoding="utf-8")
    return path


def run(path: Path, rows: list[dict], *flags: str) -> None:
    """Score answers."""
    result = write_lines(rows, path.parent / "answers.jsonl")
    eval_mmbench.main(["--annotation-file", str(path), "--result-file", str(result), *flags])


def all_rounds(right: dict[tuple[str, int], bool]) -> list[dict]:
    """Answers as --all-rounds writes them, right where nothing else is said."""
    answers = []
    for index, question, _, *options, answer, _, _, _ in ROWS:
        item = Item(int(index), question, tuple(filter(None, options)), "", "line")
        for asked in questions_of(item, all_rounds=True, instruction=None):
            assert asked.round is not None
            letter = "ABCD"[asked.round.option_char.index(answer)]
            wrong = "B" if letter == "A" else "A"
            text = letter if right.get((index, asked.round.round_id), True) else wrong
            answers.append(
                {"question_id": item.index, "round_id": asked.round.round_id, "prompt": "?", "text": text}
            )
    return answers


def test_plain_answers_have_no_circular_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [{"question_id": 3, "text": "B"}, {"question_id": "5", "text": "No."},
               {"question_id": 8, "text": "The answer is C"}]  # fmt: skip
    printed = set()
    for rows in orders(answers):
        run(table(tmp_path, *ROWS), rows)
        printed.add(capsys.readouterr().out)
    (text,) = printed
    assert text.startswith("accuracy: 66.67% (n=3)\ncategory: colour: 100.00% (n=1)\n")
    assert "ability: relation: 50.00% (n=2)\n" in text
    assert "Evidence: n=3, 66.7 % (95 % interval" in text
    assert "circular" not in text


def test_a_question_counts_when_every_round_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = set()
    for rows in orders(all_rounds({("3", 2): False, ("5", 0): False})):
        run(table(tmp_path, *ROWS), rows, "--results-dir", str(tmp_path / "out"))
        printed.add(capsys.readouterr().out)
    (text,) = printed
    assert text.startswith("accuracy: 66.67% (n=3)\ncircular_accuracy: 33.33% (n=3)\n")
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert (results["benchmark"], results["split"], results["headline"]) == (
        "mmbench", "mmbench_dev", "circular_accuracy",
    )  # fmt: skip
    lines = (tmp_path / "out" / "scored.jsonl").read_text(encoding="utf-8").splitlines()
    scored = {row["question_id"]: (row["value"], row["parsed"]) for row in map(json.loads, lines)}
    assert scored == {"3": (0.0, "BBCB"), "5": (0.0, "BA"), "8": (1.0, "CCC")}, "letters of the first order"


def test_other_orders_may_be_rows_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path, TURNED_ROW, ROWS[1])
    run(path, [{"question_id": 1000005, "text": "B"}, {"question_id": 5, "text": "A"}], "--lang", "cn",
        "--results-dir", str(tmp_path / "out"))  # fmt: skip
    assert "accuracy: 100.00% (n=1)\ncircular_accuracy: 100.00% (n=1)\n" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["benchmark"] == "mmbench_cn"
    run(path, [{"question_id": 1000005, "text": "A"}, {"question_id": 5, "text": "A"}])
    assert "accuracy: 100.00% (n=1)\ncircular_accuracy: 0.00% (n=1)\n" in capsys.readouterr().out


def test_a_large_index_without_a_first_row_is_a_question_of_its_own() -> None:
    assert question_of("2000005", {"5", "2000005"}) == "5"
    assert question_of("2000005", {"2000005"}) == "2000005"
    assert question_of("b7", {"7"}) == "b7"


def test_missing_and_unreadable_answers_are_wrong_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    failed = {"question_id": 8, "text": "", "metadata": {"error": "picture cut off"}}
    run(table(tmp_path, *ROWS), [{"question_id": 3, "text": "Some colour"}, failed])
    text = capsys.readouterr().out
    assert "accuracy: 0.00% (n=3)" in text
    assert "Coverage: 33.33% (1 of 3 questions have an answer)" in text
    assert "33.3 % unparsable, 2 missing" in text
    assert "2 questions have no answer, first 5, 8; counted as wrong" in caplog.text


def test_a_lone_option_and_rounds_of_it() -> None:
    (asked,) = judge([Row("1", ("only",), "A")], {("1", 0): "A"})
    assert asked.has_all_orders
    assert asked.all_right


REFUSED = {
    "unknown": ([{"question_id": 4, "text": "A"}], "1 answer belongs to no question, first 4"),
    "twice": ([{"question_id": 5, "text": "A"}] * 2, "answered more than once, first 5"),
    "no such round": (
        [{"question_id": 5, "round_id": 2, "text": "A"}],
        "round_id: found 2; 0 to 1 was wanted",
    ),
    "no round": ([{"question_id": 5, "round_id": "x", "text": "A"}], "round_id: found 'x'"),
}


@pytest.mark.parametrize(("rows", "part"), REFUSED.values(), ids=REFUSED)
def test_answers_that_do_not_belong_are_refused(
    rows: list[dict], part: str, tmp_path: Path, refusal: Failing
) -> None:
    path, result = table(tmp_path, *ROWS), write_lines(rows, tmp_path / "answers.jsonl")
    assert part in refusal(eval_mmbench.main, "--annotation-file", path, "--result-file", result)


def test_tables_without_a_right_answer_are_refused(tmp_path: Path, refusal: Failing) -> None:
    result = write_lines([{"question_id": 3, "text": "B"}], tmp_path / "answers.jsonl")

    def told(*rows: tuple[str, ...], columns: tuple[str, ...] = COLUMNS) -> str:
        path = table(tmp_path, *rows, columns=columns)
        return refusal(eval_mmbench.main, "--annotation-file", path, "--result-file", result)

    renamed = tuple(name if name != "answer" else "gold" for name in COLUMNS)
    assert "has no answers (column answer); test splits" in told(*ROWS, columns=renamed)
    assert "line 2, answer: found 'E'; one of A, B, C, D was wanted" in told(
        (*ROWS[0][:7], "E", *ROWS[0][8:]), *ROWS[1:]
    )
    assert "1 id stands twice, first 5" in told(*ROWS, ROWS[1])
    empty = tmp_path / "empty.tsv"
    empty.write_text("", encoding="utf-8")
    assert "is empty" in refusal(eval_mmbench.main, "--annotation-file", empty, "--result-file", result)


def test_circular_accuracy_is_refused_where_orders_lack(tmp_path: Path, refusal: Failing) -> None:
    path = table(tmp_path, *ROWS)
    result = write_lines([{"question_id": 3, "text": "B"}], tmp_path / "answers.jsonl")
    flags = ("--annotation-file", path, "--result-file", result, "--circular")
    assert "3 questions lack orders, first 3, 5, 8; answer with --all-rounds" in refusal(
        eval_mmbench.main, *flags
    )
