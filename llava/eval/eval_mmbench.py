"""MMBench: accuracy from the table's own answers, and circular accuracy when all orders were asked.

    python -m llava.eval.eval_mmbench --annotation-file mmbench_dev_20230712.tsv --result-file answers.jsonl

A question's other orders are rows of the table or rounds of --all-rounds; it counts for circular accuracy
when all of them are answered right.
"""

import hashlib
import logging
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from string import ascii_uppercase

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.answer_files import (
    Entry,
    coverage_line,
    read_answers,
    refuse_unknown,
    wanted_path,
    warn_missing,
)
from llava.eval.evidence import add_results_flag, figure, publish
from llava.eval.kinds import by_kind, figure_lines
from llava.eval.metrics.mmbench import Asked, Key, Row, judge
from llava.eval.metrics.pairing import REPEATED, TWICE, Coverage, compare_ids, repeated_ids, tell
from llava.eval.mmbench_questions import is_nothing, read_table
from llava.eval.results_file import Figure
from llava.eval.scored_file import Scored
from llava.records import DataError, Problems, shorten
from llava.terminal import say

BENCHMARKS = {"en": "mmbench", "cn": "mmbench_cn"}
ACCURACY, CIRCULAR = "accuracy", "circular_accuracy"
ABILITIES = "l2-category"
SHOWN_HASH = 16


def parser() -> CommandParser:
    """The flags."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--annotation-file", help="the benchmark's .tsv file, with the column answer")
    add("--result-file", help="JSON lines with question_id, text and, of --all-rounds, round_id")
    add("--circular", action="store_true", help="refuse answers that lack an order of some question")
    add("--lang", default="en", choices=sorted(BENCHMARKS), help="of the benchmark, for its name")
    add_results_flag(options)
    return options


def read_truth(path: Path) -> list[Row]:
    """The table's rows with their answers. `DataError` lists what is wrong; that of a test split has none."""
    table = read_table(path)
    if "answer" not in table[0][1] or all(is_nothing(cells["answer"]) for _, cells in table):
        raise DataError(
            f"{path} has no answers (column answer); test splits are scored by the benchmark's server, see "
            "scripts/convert_mmbench_for_submission.py."
        )
    problems = Problems(path)
    rows = [row_of(place, cells, problems) for place, cells in table]
    repeated = repeated_ids(row.index for row in rows)
    if repeated:
        problems.add("index", f"{tell(repeated, TWICE)}; keep one row of each")
    problems.raise_any()
    return rows


def row_of(place: str, cells: dict[str, str], problems: Problems) -> Row:
    """One row; what is wrong with it goes to `problems`."""
    letters = takewhile(cells.__contains__, ascii_uppercase)
    options = tuple(takewhile(lambda cell: not is_nothing(cell), (cells[letter] for letter in letters)))
    answer, offered = cells["answer"].strip(), ascii_uppercase[: len(options)]
    if answer not in offered or len(answer) != 1:
        problems.add(f"{place}, answer", f"found {shorten(answer)}; one of {', '.join(offered)} was wanted")
    digest = hashlib.sha256(cells["image"].encode()).hexdigest()[:SHOWN_HASH]
    category, ability = cells.get("category") or None, cells.get(ABILITIES) or None
    return Row(cells["index"].strip(), options, answer, category, ability, digest)


def read_rounds(path: Path, rows: Sequence[Row]) -> dict[Key, str]:
    """(index, round) -> answer. `DataError` lists answers to other questions or rounds, and repeated ones."""
    entries = read_answers(path)
    refuse_unknown(compare_ids((row.index for row in rows), (entry.question_id for entry in entries)), path)
    counts = {row.index: max(len(row.options), 1) for row in rows}
    problems = Problems(path)
    for entry in entries:
        turn = entry.fields.get("round_id", 0)
        if type(turn) is not int or not 0 <= turn < counts[entry.question_id]:
            wanted = f"0 to {counts[entry.question_id] - 1} was wanted, for as many options"
            problems.add(f"{entry.place}, round_id", f"found {shorten(turn)}; {wanted}")
    problems.raise_any()
    repeated = repeated_ids(called(entry.question_id, round_of(entry)) for entry in entries)
    if repeated:
        problems.add("question_id", f"{tell(repeated, REPEATED)}; keep one line for each")
    problems.raise_any()
    return {(entry.question_id, round_of(entry)): entry.text() for entry in entries}


def round_of(entry: Entry) -> int:
    """The round that an answer belongs to."""
    return int(str(entry.fields.get("round_id", 0)))


def called(index: str, round_id: int) -> str:
    """A showing for messages."""
    return f"{index} (round {round_id})" if round_id else index


def first_row(asked: Asked) -> Scored:
    """A question as it stands."""
    first = asked.first
    return Scored(
        asked.name, float(first.right), first.row.image, first.row.category, first.chosen, first.missing
    )


def circular_row(asked: Asked) -> Scored:
    """A question in all orders; what was chosen in each is `parsed`."""
    row = asked.first.row
    return Scored(asked.name, float(asked.all_right), row.image, row.category, asked.letters, asked.missing)


def figures_of(asked: Sequence[Asked], rows: Sequence[Scored], *, circular: bool) -> dict[str, Figure]:
    """All figures; those of categories and abilities are of `rows`, as the headline."""
    figures = {ACCURACY: figure([first_row(one) for one in asked])}
    if circular:
        figures[CIRCULAR] = figure(rows)
    figures |= by_kind("category", rows, [one.first.row.category for one in asked])
    return figures | by_kind("ability", rows, [one.first.row.ability for one in asked])


def all_orders(asked: Sequence[Asked], path: Path, *, wanted: bool) -> bool:
    """Whether every question was shown in all orders; `UsageError` when that is wanted and is not so."""
    lacking = [one.name for one in asked if not one.has_all_orders]
    if lacking and wanted:
        told = tell(lacking, "question lacks an order|questions lack orders")
        raise UsageError(
            f"{path}: {told}; answer with --all-rounds, or score the table that holds every order as a row."
        )
    return not lacking


def missing_showings(asked: Sequence[Asked]) -> tuple[str, ...]:
    """What has no answer, for messages."""
    showings = [one for each in asked for one in each.showings if one.missing]
    return tuple(called(one.row.index, one.round_id) for one in showings)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures, and write them with --results-dir."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    table = wanted_path(options.annotation_file, "--annotation-file")
    path = wanted_path(options.result_file, "--result-file")
    truth = read_truth(table)
    answers = read_rounds(path, truth)
    asked = judge(truth, answers)
    circular = all_orders(asked, path, wanted=options.circular)
    missing = missing_showings(asked)
    warn_missing(Coverage(missing, (), ()), path, "counted as wrong")
    rows = [circular_row(one) if circular else first_row(one) for one in asked]
    figures = figures_of(asked, rows, circular=circular)
    shown = sum(len(one.showings) for one in asked)
    say(figure_lines(figures) + coverage_line(shown - len(missing), shown))
    publish(
        BENCHMARKS[options.lang],
        figures,
        CIRCULAR if circular else ACCURACY,
        rows,
        answers=path,
        truth=[table],
        results_dir=options.results_dir,
        split=table.stem,
    )


if __name__ == "__main__":
    main()
