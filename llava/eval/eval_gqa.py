"""GQA: accuracy over all questions, over binary and open ones, and per type.

    python -m llava.eval.eval_gqa --questions testdev_balanced_questions.json --answers merge.jsonl

The questions are the benchmark's own file, the answers JSON lines as llava.eval.model_vqa_loader writes them.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import coverage_line, read_answers_to
from llava.eval.evidence import add_results_flag, publish
from llava.eval.metrics.gqa import GqaQuestion, figures_of, report, score
from llava.records import DataError, Problems, kind_of, read_object, shorten
from llava.terminal import say

QUESTIONS = 'question file of GQA (JSON: id to {"imageId", "question", "answer", "types"})'


def parser() -> CommandParser:
    """The flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--questions", type=Path, required=True, help="testdev_balanced_questions.json")
    options.add_argument("--answers", type=Path, required=True, help="JSON lines with question_id and text")
    add_results_flag(options)
    return options


def read_questions(path: Path) -> list[GqaQuestion]:
    """All questions. `DataError` lists what is wrong with the file."""
    rows, problems = read_object(path, QUESTIONS), Problems(path)
    if not rows:
        raise DataError(f"{path} holds no questions; a {QUESTIONS} was wanted.")
    found = [question_of(name, row, problems) for name, row in rows.items()]
    problems.raise_any()
    return [question for question in found if question is not None]


def question_of(name: str, row: object, problems: Problems) -> GqaQuestion | None:
    """One question, or None when something is wrong with it."""
    place, before = f"question {name}", len(problems.messages)
    if not isinstance(row, dict):
        problems.add(place, f"found {kind_of(row)}; an object was wanted")
        return None
    types = row.get("types")
    types = types if isinstance(types, dict) else {}
    wanted = {
        "imageId": row.get("imageId"),
        "answer": row.get("answer"),
        "types, structural": types.get("structural"),
        "types, semantic": types.get("semantic"),
    }
    for key, value in wanted.items():
        if not isinstance(value, str):
            told = "give the questions with answers; those of the test and challenge splits have none"
            remedy = told if key == "answer" else "a text was wanted"
            problems.add(f"{place}, {key}", f"found {kind_of(value)} ({shorten(value)}); {remedy}")
    if len(problems.messages) > before:
        return None
    return GqaQuestion(name, *(str(value) for value in wanted.values()))


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print the accuracies."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    questions = read_questions(options.questions)
    ids = (question.question_id for question in questions)
    answers = read_answers_to(options.answers, ids, "counted as wrong")
    rows = score(questions, answers)
    figures = figures_of(questions, rows)
    say(report(figures) + coverage_line(len(answers), len(rows)))
    publish(
        "gqa",
        figures,
        "accuracy",
        rows,
        answers=options.answers,
        truth=[options.questions],
        results_dir=options.results_dir,
        split=options.questions.stem,
    )


if __name__ == "__main__":
    main()
