"""Write the answers to VQAv2's test questions as the challenge server takes them.

    python scripts/convert_vqav2_for_submission.py --split llava_vqav2_mscoco_test-dev2015 --ckpt NAME

Reads DIR/answers/SPLIT/NAME/merge.jsonl and the server's questions, DIR/llava_vqav2_mscoco_test2015.jsonl;
writes DIR/answers_upload/SPLIT/NAME.json. A question without an answer gets an empty one.
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
    refuse_repeated,
    warn_missing,
    warn_unknown,
    write_json,
)
from llava.eval.metrics.pairing import TWICE, compare_ids
from llava.eval.submissions import vqav2

QUESTIONS = "llava_vqav2_mscoco_test2015.jsonl"


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--dir", default="./playground/data/eval/vqav2", help="VQAv2's folder")
    options.add_argument("--ckpt", required=True, help="name of the model's folder below answers/SPLIT")
    options.add_argument("--split", required=True, help="name of the folder below answers")
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Convert, and say how many answers there are."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    folder = Path(options.dir)
    path = folder / "answers" / options.split / options.ckpt / "merge.jsonl"
    questions = read_entries(folder / QUESTIONS, "question file (JSON lines)", ("question_id",))
    refuse_repeated(questions, folder / QUESTIONS, TWICE)
    entries, broken = read_answers_leniently(path)
    answers = last_texts(entries, path)
    coverage = compare_ids((entry.question_id for entry in questions), answers)
    warn_missing(coverage, path, "they get an empty one")
    warn_unknown(coverage, path)
    target = folder / "answers_upload" / options.split / f"{options.ckpt}.json"
    write_json(vqav2((entry.fields["question_id"] for entry in questions), answers), target)
    sys.stdout.write(f"total results: {len(answers)}, total split: {len(questions)}, error_line: {broken}\n")


if __name__ == "__main__":
    main()
