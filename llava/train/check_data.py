"""Check a conversation file and its pictures before a training, all problems at once.

    python -m llava.train.check_data --data_path train.json --image_folder images \\
        [--model_name_or_path CHECKPOINT]

Errors keep a file from being trained on (exit code 2), notes do not (0). With a checkpoint lengths are
counted by its tokenizer, and what --model_max_length cuts is told.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.conversation import VERSIONS, training_template
from llava.errors import UsageError, exit_on_usage_error
from llava.findings import Report
from llava.images import MAX_PIXELS
from llava.picture_checks import MODES
from llava.records import SHOWN_PROBLEMS, PictureFolder


def parser() -> CommandParser:
    """The flags; those of a training have its names."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--data_path", type=Path, required=True, help="conversation file: a JSON array, or JSON lines")
    add("--image_folder", help="folder that the rows' image fields are relative to")
    add("--model_name_or_path", help="folder or hub id of the model to train, to count tokens")
    add("--vision_tower", help="folder or hub id of the vision tower, for a language model without one")
    add("--version", default="v1", help="conversation template")
    add("--model_max_length", type=int, default=2048, help="most tokens of a sample, picture included")
    add("--check_pictures", choices=MODES, default="auto", help="decode pictures, or read their headers")
    pixels = "most pixels of a picture padded to a square; training takes up to the default"
    add("--max_pixels", type=int, default=MAX_PIXELS, help=pixels)
    add("--show", type=int, default=SHOWN_PROBLEMS, help="findings of each kind that are shown")
    add("--show_row", type=int, help="the row that is shown with its targets; default: the first good one")
    add("--json", action="store_true", help="print the report as JSON")
    return options


def check_values(options: Namespace) -> None:
    """`UsageError` for values that cannot work, all at once."""
    problems = []
    if options.version not in VERSIONS:
        problems.append(f"--version is {options.version!r}; known templates: {', '.join(VERSIONS)}")
    if not 1 <= options.max_pixels <= MAX_PIXELS:
        problems.append(f"--max_pixels is {options.max_pixels}; it must be from 1 to {MAX_PIXELS}")
    if options.model_max_length < 1:
        problems.append(f"--model_max_length is {options.model_max_length}; it must be at least 1")
    if options.show < 0:
        problems.append(f"--show is {options.show}; it must not be negative")
    if problems:
        raise UsageError("; ".join(problems) + ".")


def report_of(options: Namespace) -> Report:
    """Check everything that the flags name."""
    from llava.train.checking import RowChecker, check_shown_pictures, show_text

    report = Report(options.data_path)
    encoding = None
    if options.model_name_or_path:
        from llava.train import length_check as lengths
        from llava.train.own_arguments import DataArguments, ModelArguments

        model_args = ModelArguments(
            options.model_name_or_path, version=options.version, vision_tower=options.vision_tower
        )
        data_args = DataArguments(str(options.data_path))
        encoding = lengths.encoding_for(model_args, data_args, max_length=options.model_max_length)
    rows = RowChecker(options.data_path, PictureFolder(options.image_folder), report).read()
    check_shown_pictures(rows, report, mode=options.check_pictures, max_pixels=options.max_pixels)
    if encoding is None:
        show_text(rows, report, training_template(options.version), options.show_row)
        return report
    lengths.check_lengths(rows, encoding, report)
    lengths.count_lengths(rows, encoding, report)
    lengths.show_encoded(rows, encoding, report, options.show_row)
    return report


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Check, print the report, and end with its exit code."""
    options = parser().parse(argv)
    check_values(options)
    report_of(options).print_and_exit(as_json=options.json, shown=options.show)


if __name__ == "__main__":
    main()
