"""VQAv2 and VizWiz: soft accuracy over all questions and per type of answer, where annotations are there.

    python -m llava.eval.eval_vqa --questions v2_OpenEnded_mscoco_val2014_questions.json \\
        --annotations v2_mscoco_val2014_annotations.json --answers merge.jsonl
    python -m llava.eval.eval_vqa --annotations val.json --questions llava_val.jsonl --answers answers.jsonl

VizWiz' annotations name pictures, not ids; its question file (JSON lines) tells which question_id belongs to
which picture, and without one the answers' question_id is the picture.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import coverage_line, read_answers_to
from llava.eval.evidence import add_results_flag, publish
from llava.eval.metrics.vqa import figures_of, report, score
from llava.eval.vqa_files import read_annotations, read_asked
from llava.terminal import say

NAMES = {True: "vqav2", False: "vizwiz"}


def parser() -> CommandParser:
    """The flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--annotations", type=Path, required=True, help="what people answered")
    options.add_argument("--questions", type=Path, help="the questions that were asked, by default all")
    options.add_argument("--answers", type=Path, required=True, help="JSON lines with question_id and text")
    add_results_flag(options)
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print the accuracies."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    truth = read_annotations(options.annotations)
    questions = (
        list(truth.questions.values()) if options.questions is None else read_asked(options.questions, truth)
    )
    answers = read_answers_to(options.answers, (one.question_id for one in questions), "they earn nothing")
    rows = score(questions, answers)
    figures = figures_of(rows)
    say(report(figures) + coverage_line(len(answers), len(rows)))
    publish(
        NAMES[truth.by_id],
        figures,
        "accuracy",
        rows,
        answers=options.answers,
        truth=[path for path in (options.annotations, options.questions) if path is not None],
        results_dir=options.results_dir,
        split=options.annotations.stem,
    )


if __name__ == "__main__":
    main()
