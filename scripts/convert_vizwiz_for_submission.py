"""Write the answers to VizWiz' test questions as the challenge server takes them.

    python scripts/convert_vizwiz_for_submission.py --annotation-file llava_test.jsonl \\
        --result-file answers.jsonl --result-upload-file upload.json
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import (
    last_texts,
    read_answers_leniently,
    read_entries,
    refuse_missing,
    refuse_repeated,
    warn_unknown,
    write_json,
)
from llava.eval.metrics.pairing import TWICE, compare_ids
from llava.eval.submissions import vizwiz

QUESTIONS = 'question file (JSON lines with "question_id" and "image")'


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--annotation-file", type=Path, required=True, help="the questions, JSON lines")
    options.add_argument("--result-file", type=Path, required=True, help="the answers, JSON lines")
    options.add_argument("--result-upload-file", type=Path, required=True, help="JSON file to write")
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Convert, and say how many answers there are."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    questions = read_entries(options.annotation_file, QUESTIONS, ("question_id", "image"))
    refuse_repeated(questions, options.annotation_file, TWICE)
    entries, broken = read_answers_leniently(options.result_file)
    answers = last_texts(entries, options.result_file)
    sys.stdout.write(f"total results: {len(answers)}, total split: {len(questions)}, error_line: {broken}\n")
    coverage = compare_ids((entry.question_id for entry in questions), answers)
    refuse_missing(coverage, options.result_file)
    warn_unknown(coverage, options.result_file)
    pictures = {entry.question_id: entry.text("image") for entry in questions}
    write_json(vizwiz(pictures, answers), options.result_upload_file)


if __name__ == "__main__":
    main()
