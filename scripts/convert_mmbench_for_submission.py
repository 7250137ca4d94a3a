"""Write answers to MMBench as the Excel file that its server takes.

    python scripts/convert_mmbench_for_submission.py --annotation-file mmbench_dev_20230712.tsv \\
        --result-dir answers/mmbench_dev_20230712 --upload-dir upload --experiment NAME

Reads RESULT_DIR/NAME.jsonl, writes UPLOAD_DIR/NAME.xlsx. Needs openpyxl (the extra `report`).
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import Entry, last_texts, read_answers, warn_missing, warn_unknown
from llava.eval.metrics.pairing import TWICE, compare_ids, repeated_ids, tell
from llava.eval.mmbench_questions import read_table
from llava.eval.submissions import mmbench_sheet
from llava.records import DataError

logger = logging.getLogger(__name__)


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--annotation-file", type=Path, required=True, help="the benchmark's .tsv file")
    options.add_argument("--result-dir", type=Path, required=True, help="folder of the answer files")
    options.add_argument("--upload-dir", type=Path, required=True, help="folder to write to")
    options.add_argument("--experiment", required=True, help="name of the answer file without .jsonl")
    return options


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the benchmark, with one set of columns. `DataError` lists what is wrong with the file."""
    rows = [cells for _, cells in read_table(path)]
    repeated = repeated_ids(row["index"] for row in rows)
    if repeated:
        raise DataError(f"{path}: {tell(repeated, TWICE)}; an MMBench table with each index once was wanted.")
    return rows


def first_round(entries: Sequence[Entry], path: Path) -> list[Entry]:
    """Answers to the options in their own order; letters of --all-rounds' other rounds mean other options."""
    kept = [entry for entry in entries if entry.fields.get("round_id", 0) == 0]
    if len(kept) < len(entries):
        logger.warning("%s: %d answers of later rounds are left out", path, len(entries) - len(kept))
    return kept


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    from llava.eval.sheet import write_sheet

    rows = read_rows(options.annotation_file)
    path = options.result_dir / f"{options.experiment}.jsonl"
    answers = last_texts(first_round(read_answers(path), path), path)
    coverage = compare_ids((row["index"] for row in rows), answers)
    warn_missing(coverage, path, "their cells stay empty")
    warn_unknown(coverage, path)
    sheet = mmbench_sheet(list(rows[0]), rows, answers)
    write_sheet(sheet, options.upload_dir / f"{options.experiment}.xlsx")


if __name__ == "__main__":
    main()
