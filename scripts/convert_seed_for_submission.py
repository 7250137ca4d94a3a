"""Score answers to SEED-Bench, and write them as its leaderboard takes them.

    python scripts/convert_seed_for_submission.py --annotation-file SEED-Bench.json \\
        --result-file answers.jsonl --result-upload-file upload.jsonl
"""

import json
import logging
import sys
from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import (
    read_answers,
    refuse_missing,
    refuse_repeated,
    refuse_unknown,
    wanted_path,
    write_text,
)
from llava.eval.evidence import add_results_flag, publish
from llava.eval.metrics.pairing import compare_ids
from llava.eval.metrics.seed import figures_of, report, scored_of
from llava.eval.seed_files import read_seed
from llava.eval.submissions import seed


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--annotation-file", help="SEED-Bench.json")
    options.add_argument("--result-file", help="the answers, JSON lines")
    options.add_argument("--result-upload-file", help="JSON lines to write")
    add_results_flag(options)
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print the accuracies and convert."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    truth = wanted_path(options.annotation_file, "--annotation-file")
    bench = read_seed(truth)
    path = wanted_path(options.result_file, "--result-file")
    target = wanted_path(options.result_upload_file, "--result-upload-file")
    entries = read_answers(path)
    refuse_repeated(entries, path)
    answers = {entry.question_id: entry.text() for entry in entries}
    ids = [question.question_id for question in bench.questions]
    coverage = compare_ids(ids, answers)
    refuse_unknown(coverage, path)
    refuse_missing(coverage, path)
    write_text("".join(json.dumps(row) + "\n" for row in seed(ids, answers)), target)
    sys.stdout.write(report(bench.questions, answers, bench.type_names))
    rows = scored_of(bench.questions, answers, bench.type_names)
    publish(
        "seed",
        figures_of(bench.questions, rows),
        "accuracy",
        rows,
        answers=path,
        truth=[truth],
        results_dir=options.results_dir,
    )


if __name__ == "__main__":
    main()
