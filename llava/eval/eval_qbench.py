"""Q-Bench: share of right options over all questions, per type and per concern; the file for its server.

    python -m llava.eval.eval_qbench --question-file llvisionqa_dev.json --result-file answers.jsonl
    python -m llava.eval.eval_qbench --question-file llvisionqa_test.json --result-file answers.jsonl \\
        --submission-file llvisionqa_test_answers.jsonl

The submission has the rows of the question file with the model's answer as `response`; a test split, which
has no `correct_ans`, can only be submitted.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import (
    coverage_line,
    read_answers_to,
    wanted_path,
    write_text,
)
from llava.eval.evidence import add_results_flag, figure, publish
from llava.eval.kinds import by_kind, figure_lines
from llava.eval.metrics.qbench import Item, Judged, judge
from llava.eval.qbench_questions import WANTED, read_items
from llava.eval.results_file import Figure
from llava.eval.scored_file import Scored
from llava.records import DataError, read_rows
from llava.terminal import note, say

BENCHMARKS = {"en": "qbench", "zh": "qbench_zh"}
ACCURACY = "accuracy"


def parser() -> CommandParser:
    """The flags."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--question-file", help="the benchmark's JSON file")
    add("--result-file", help="JSON lines with question_id (the picture) and text")
    add("--submission-file", type=Path, help="JSON lines to write for the benchmark's server")
    add("--lang", default="en", choices=sorted(BENCHMARKS), help="of the benchmark, for its name")
    add_results_flag(options)
    return options


def scored(judged: Judged) -> Scored:
    """An item's row."""
    item = judged.item
    return Scored(item.question_id, float(judged.right), item.image, item.type, judged.chosen, judged.missing)


def figures_of(judged: Sequence[Judged]) -> dict[str, Figure]:
    """Accuracy over all items, and over those of each kind."""
    rows = [scored(one) for one in judged]
    figures = {ACCURACY: figure(rows)} | by_kind("type", rows, [one.item.type for one in judged])
    return figures | by_kind("concern", rows, [one.item.concern for one in judged])


def submission(path: Path, items: Sequence[Item], answers: Mapping[str, str]) -> str:
    """The question file's rows with the answers, "" where there is none."""
    rows = read_rows(path, WANTED)
    lines = []
    for row, item in zip(rows, items, strict=True):
        assert isinstance(row.value, dict)
        answered = row.value | {"response": answers.get(item.question_id, "")}
        lines.append(json.dumps(answered, ensure_ascii=False) + "\n")
    return "".join(lines)


def has_answers(path: Path, items: Sequence[Item]) -> bool:
    """Whether the file has the right options; `DataError` when only some are there."""
    lacking = [item.question_id for item in items if item.right is None]
    if lacking and len(lacking) < len(items):
        raise DataError(f"{path}: {len(lacking)} rows have no correct_ans, first {lacking[0]}; add them.")
    return not lacking


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Write the submission and print the figures, as far as the split allows it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    questions = wanted_path(options.question_file, "--question-file")
    path = wanted_path(options.result_file, "--result-file")
    items = read_items(questions)
    answers = read_answers_to(path, (item.question_id for item in items), "counted as wrong")
    if options.submission_file is not None:
        write_text(submission(questions, items, answers), options.submission_file)
    if not has_answers(questions, items):
        if options.submission_file is None:
            raise DataError(
                f"{questions} has no correct_ans: a test split is scored by the benchmark's server; write "
                "the file for it with --submission-file."
            )
        note(f"note: {questions} has no correct_ans; only {options.submission_file} was written.\n")
        return
    judged = judge(items, answers)
    figures = figures_of(judged)
    say(figure_lines(figures) + coverage_line(len(answers), len(items)))
    publish(
        BENCHMARKS[options.lang],
        figures,
        ACCURACY,
        [scored(one) for one in judged],
        answers=path,
        truth=[questions],
        results_dir=options.results_dir,
        split=questions.stem,
    )


if __name__ == "__main__":
    main()
