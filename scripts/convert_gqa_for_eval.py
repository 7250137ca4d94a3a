"""Write an answer file as GQA's own scoring program takes it.

python scripts/convert_gqa_for_eval.py --src answers.jsonl --dst testdev_balanced_predictions.json
"""

import logging
from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import last_entries, read_answers, wanted_path, write_json
from llava.eval.submissions import gqa


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--src", help="JSON lines with question_id and text")
    options.add_argument("--dst", help="JSON file to write")
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    source, target = wanted_path(options.src, "--src"), wanted_path(options.dst, "--dst")
    entries = last_entries(read_answers(source), source)
    write_json(gqa((entry.fields["question_id"], entry.text()) for entry in entries), target)


if __name__ == "__main__":
    main()
