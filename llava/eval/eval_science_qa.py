"""ScienceQA: accuracy over all problems of a split, and over those with a picture.

    python llava/eval/eval_science_qa.py --base-dir ScienceQA/data/scienceqa --result-file answers.jsonl \\
        --output-file out.json --output-result result.json --split test
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import (
    coverage_line,
    read_answers,
    refuse_repeated,
    refuse_unknown,
    wanted_path,
    warn_missing,
    write_json,
)
from llava.eval.evidence import add_results_flag, publish
from llava.eval.metrics.pairing import compare_ids
from llava.eval.metrics.science_qa import LETTERS, Answer, Problem, figures_of, score, scored_of
from llava.eval.science_files import read_problems, read_split
from llava.records import DataError
from llava.terminal import say


def letters(text: str) -> tuple[str, ...]:
    """`ABCD` or `A,B,C,D` to letters."""
    parts = text.split(",") if "," in text else list(text)
    return tuple(part.strip() for part in parts if part.strip())


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--base-dir", help="folder of problems.json and pid_splits.json")
    options.add_argument("--result-file", help="JSON lines with question_id, prompt and text")
    options.add_argument("--output-file", help="JSON to write: every answer, right or wrong")
    options.add_argument("--output-result", help="JSON to write: accuracy and the choice per problem")
    options.add_argument("--split", default="test", help="a split of pid_splits.json")
    options.add_argument("--options", type=letters, default=LETTERS, help="the letters of the choices")
    add_results_flag(options)
    return options


def scored_problems(folder: Path, split: str, options: Sequence[str]) -> tuple[list[Problem], list[str]]:
    """The problems of a split, and the ids of all. `DataError` when the letters do not reach."""
    problems = read_problems(folder)
    chosen = [
        Problem(problem.problem_id, len(problem.choices), problem.answer)
        for problem in read_split(folder, split, problems)
    ]
    short = [problem.problem_id for problem in chosen if problem.right >= len(options)]
    if short:
        raise DataError(
            f"{folder}: problem {short[0]} has its right choice behind the last of the letters "
            f"{', '.join(options)}; give more with --options."
        )
    return chosen, list(problems)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Score, write both files and print the line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    folder = wanted_path(options.base_dir, "--base-dir")
    path = wanted_path(options.result_file, "--result-file")
    problems, known = scored_problems(folder, options.split, options.options)
    entries = read_answers(path)
    refuse_repeated(entries, path)
    answers = {entry.question_id: Answer(entry.text(), entry.text("prompt")) for entry in entries}
    refuse_unknown(compare_ids(known, answers), path)
    coverage = compare_ids((problem.problem_id for problem in problems), answers)
    warn_missing(coverage, path, "counted as wrong")
    scores = score(problems, answers, options.options)
    for value, target in (
        (scores.analysis(), options.output_file),
        (scores.result(), options.output_result),
    ):
        if target:
            write_json(value, Path(target), indent=2)
    total = len(problems)
    say(scores.line() + coverage_line(total - len(coverage.missing), total))
    rows = scored_of(scores, answers)
    publish(
        "scienceqa",
        figures_of(rows),
        "accuracy",
        rows,
        answers=path,
        truth=[folder / "problems.json", folder / "pid_splits.json"],
        results_dir=options.results_dir,
        split=options.split,
    )


if __name__ == "__main__":
    main()
