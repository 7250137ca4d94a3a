"""Write an answer file as MM-Vet's evaluation takes it.

python scripts/convert_mmvet_for_eval.py --src answers.jsonl --dst mm-vet.json
"""

import logging
from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import last_texts, read_answers, wanted_path, write_json
from llava.eval.submissions import mmvet


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
    write_json(mmvet(last_texts(read_answers(source), source)), target, indent=2)


if __name__ == "__main__":
    main()
