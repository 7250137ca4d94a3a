"""Merge a LoRA adapter into its base, and write the whole model in the original LLaVA's layout.

    python scripts/merge_lora_weights.py --model-path ADAPTER --model-base BASE --save-model-path FOLDER

The same as `python -m llava.model.export --to llava`, under the original's flags.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.model.export import export

logger = logging.getLogger(__name__)


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--model-path", required=True, help="adapter folder")
    options.add_argument("--model-base", required=True, help="folder of the model it was trained on")
    options.add_argument("--save-model-path", required=True, help="folder to write; it must be empty or new")
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parser().parse(argv)
    out = Path(arguments.save_model_path).resolve()
    worst = export(arguments.model_path, arguments.model_base, out, to="llava")
    logger.info("Wrote %s; opened by itself, its logits differ by at most %.2g.", out, worst)


if __name__ == "__main__":
    main()
