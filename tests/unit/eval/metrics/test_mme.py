"""MME: both layouts of its folder, pairs by picture and text, sums of tasks, files for its own program."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.eval import eval_mme
from llava.eval.metrics.mme import MmeQuestion, figures_of, plain, score, word_of
from llava.eval.results_file import read_results
from llava.eval.scored_file import read_scored
from tests.unit.eval.metrics.conftest import Failing, before_evidence, orders, write_lines

HINT = "\nAnswer the question using a single word or phrase."
TASKS = {"existence": "", "OCR": "", "landmark": "questions_answers_YN", "code_reasoning": ""}


def lines(task: str, number: int) -> list[tuple[str, str]]:
    """The two questions on a picture."""
    return [
        (f"Is {task}  {number} there? Please answer yes or no.", "Yes"),
        (f"Is nothing of {task} {number} there? Please answer yes or no.", "No"),
    ]


def answers() -> list[dict]:
    """All right but one of existence and both of one landmark."""
    rows = []
    for task in TASKS:
        for number in range(4):
            for text, truth in lines(task, number):
                wrong = (task, number, truth) in (("existence", 0, "No"), ("landmark", 1, "Yes"),
                                                  ("landmark", 1, "No"))  # fmt: skip
                said = {"Yes": "No.", "No": "yes"}[truth] if wrong else f"{truth}, it is."
                prompt = plain(text) + HINT if task == "OCR" else text + HINT
                rows.append({"question_id": f"{task}/0{number}.v.png", "prompt": prompt, "text": said})
    return rows


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """The command line on a folder of both layouts, with a tool beside the tasks."""
    for task, inner in TASKS.items():
        folder = tmp_path / "MME" / task / inner
        folder.mkdir(parents=True)
        for number in range(4):
            text = "".join("\t".join(pair) + "\n" for pair in lines(task, number))
            (folder / f"0{number}.v.txt").write_text(text)
    (tmp_path / "MME" / "eval_tool").mkdir()
    (tmp_path / "MME" / "readme.txt").write_text("MME")
    write_lines(answers(), tmp_path / "mine.jsonl")
    return ["--mme-dir", str(tmp_path / "MME"), "--answers", str(tmp_path / "mine.jsonl")]


PRINTED = (
    "Perception: 512.50 (3 of 10 tasks)\n"
    "  existence: 162.50 (accuracy 87.50%, accuracy+ 75.00%)\n"
    "  landmark: 150.00 (accuracy 75.00%, accuracy+ 75.00%)\n"
    "  OCR: 200.00 (accuracy 100.00%, accuracy+ 100.00%)\n"
    "Cognition: 200.00 (1 of 4 tasks)\n"
    "  code_reasoning: 200.00 (accuracy 100.00%, accuracy+ 100.00%)\n"
)


def test_no_order_of_lines_matters(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    printed, written = set(), set()
    for rows in orders(answers()):
        write_lines(rows, tmp_path / "mine.jsonl")
        eval_mme.main([*flags, "--out", str(tmp_path / "out"), "--results-dir", str(tmp_path / "results")])
        printed.add(capsys.readouterr().out)
        written.add(tuple(path.read_text() for path in sorted((tmp_path / "out").iterdir())))
    (text,) = printed
    assert before_evidence(text) == PRINTED
    assert "Evidence: n=24, 512.5 points (95 % interval " in text
    assert len(written) == 1
    results = read_results(tmp_path / "results" / "results.json")
    assert results.headline == "perception"
    assert results.figures["perception"].low < 512.5 < results.figures["perception"].high
    assert results.figures["OCR_accuracy_plus"].value == 100
    rows = read_scored(tmp_path / "results" / "scored.jsonl")
    assert (len(rows), sum(row.value for row in rows)) == (32, 29)


def test_files_are_those_of_the_benchmarks_own_converter(tmp_path: Path, flags: list[str]) -> None:
    """File, question as the benchmark has it, truth and answer; the two of a picture follow each other."""
    eval_mme.main([*flags, "--out", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{task}.txt" for task in TASKS}
    rows = [line.split("\t") for line in (tmp_path / "out/existence.txt").read_text().splitlines()]
    assert rows[0] == ["00.v.txt", lines("existence", 0)[0][0], "Yes", "Yes, it is."]
    assert rows[1] == ["00.v.txt", lines("existence", 0)[1][0], "No", "yes"]
    assert [row[0] for row in rows] == [f"0{number}.v.txt" for number in range(4) for _ in range(2)]


def test_missing_answers_are_wrong(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_lines(answers()[:-1], tmp_path / "mine.jsonl")
    eval_mme.main([*flags, "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert "Cognition: 162.50" in told
    assert "Coverage: 96.88% (31 of 32 questions have an answer)" in told
    assert "1 missing" in told
    assert "1 question has no answer, first code_reasoning/03.v Is nothing" in caplog.text
    assert (tmp_path / "out/code_reasoning.txt").read_text().endswith("\tNo\t\n")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question_id": "existence/9.png", "prompt": "x", "text": "yes"}, "of which there is no question"),
        (
            {"question_id": "existence/00.v.png", "prompt": "x", "text": "yes"},
            "a prompt with 'Is existence 0",
        ),
        (answers()[0], "keep one answer per question"),
    ],
)
def test_answers_that_belong_nowhere_are_refused(
    tmp_path: Path, flags: list[str], refusal: Failing, row: dict, told: str
) -> None:
    write_lines([*answers(), row], tmp_path / "mine.jsonl")
    assert told in refusal(eval_mme.main, *flags)


def test_broken_folders_are_told(tmp_path: Path, flags: list[str], refusal: Failing) -> None:
    assert "did you mean" in refusal(eval_mme.main, "--mme-dir", tmp_path / "MMEE", *flags[2:])
    (tmp_path / "none" / "task").mkdir(parents=True)
    assert "holds no TASK/*.txt" in refusal(eval_mme.main, "--mme-dir", tmp_path / "none", *flags[2:])
    file = tmp_path / "MME" / "existence" / "00.v.txt"
    text = lines("existence", 0)[0][0]
    file.write_text(f"no tab\nIs it?\tMaybe\n{text}\tYes\n{text}\tNo\n")
    told = refusal(eval_mme.main, *flags)
    assert "existence/00.v.txt line 1" in told
    assert "existence/00.v.txt line 2" in told
    assert "existence/00.v.txt line 4" in told
    assert "with the other answer" in told
    file.write_text("")
    assert "00.v.txt is empty" in refusal(eval_mme.main, *flags)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("Yes", "yes"), ("no.", "no"), (" YES", "yes"), ("not", "no"), ("it: yes", None), ("", None),
        ("Dyes", "yes"),
    ],
)  # fmt: skip
def test_words_are_read_as_by_the_benchmarks_own_program(answer: str, word: str | None) -> None:
    assert word_of(answer) == word


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12), st.randoms())
def test_scores_are_accuracy_and_accuracy_plus(pictures: list[tuple[bool, bool]], rng: random.Random) -> None:
    truths = [(k, truth) for k in range(len(pictures)) for truth in (True, False)]
    asked = [MmeQuestion("count", str(k), f"Is it {truth}?", truth) for k, truth in truths]
    right = [pictures[int(one.picture)][not one.is_yes] for one in asked]
    said = {one.name: "yes" if one.is_yes == good else "no" for one, good in zip(asked, right, strict=True)}
    rows = score(asked, said)
    rng.shuffle(rows)
    figures = figures_of(rows)
    accuracy = sum(map(sum, pictures)) / len(rows)
    plus = sum(map(all, pictures)) / len(pictures)
    assert figures["perception"].value == pytest.approx(100 * (accuracy + plus))
    assert figures["count_score"].value == pytest.approx(100 * (accuracy + plus))
    assert figures["count_accuracy_plus"].value == pytest.approx(100 * plus)
