"""What stands beside a score: its interval, how much could be read, and files that say where it came from.

Pictures are drawn with replacement, all questions on a picture together (a cluster bootstrap), since answers
about one picture are right or wrong together. Where each picture has one question that is right or wrong, the
answers are independent and Wilson's interval holds.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import fsum
from pathlib import Path

import numpy as np

from llava.command_line import CommandParser
from llava.eval.answer_storage import not_written, side_file
from llava.eval.intervals import wilson
from llava.eval.results_file import FILE_NAME, PERCENT, Figure, Results, write_results
from llava.eval.scored_file import FILE_NAME as SCORED_NAME
from llava.eval.scored_file import Scored, in_order, write_scored
from llava.eval.versions import versions
from llava.records import read_object
from llava.terminal import say

DRAWS = 2000
BLOCK = 200_000
"""Units that are drawn at once."""
SAME = 1e-9
"""Draws that differ by less than this share of the value differ by rounding only."""
WILSON, WILSON_PICTURES, BOOTSTRAP = "Wilson", "Wilson over pictures", "bootstrap over pictures"
Statistic = Callable[[Sequence[Scored]], float]


def figure(rows: Sequence[Scored]) -> Figure:
    """The mean value of rows in per cent. `ValueError` without rows."""
    if not rows:
        raise ValueError("no questions to average; give at least one.")
    independent = max(Counter(row.unit for row in rows).values()) == 1
    if independent and all(row.value in (0, 1) for row in rows):
        share = wilson(sum(row.value == 1 for row in rows), len(rows))
        return Figure(100 * share.value, 100 * share.low, 100 * share.high, len(rows), PERCENT, WILSON)
    return bootstrap_sums(rows, lambda row: (row.value, 1.0), lambda sums: 100 * sums[0] / sums[1])


def bootstrap_figure(
    rows: Sequence[Scored], statistic: Statistic, *, unit: str = PERCENT, seed: int = 0
) -> Figure:
    """Any statistic of rows with an interval by drawing pictures. `ValueError` without rows.

    The statistic is computed once per draw; where it is a function of sums, `bootstrap_sums` is much quicker.
    """
    units = units_of(rows)
    draws = [
        statistic([row for place in places for row in units[place]])
        for block in drawn(len(units), seed)
        for places in block
    ]
    return with_interval(statistic(in_order(rows)), np.array(draws), rows, unit=unit)


def bootstrap_sums(
    rows: Sequence[Scored],
    features: Callable[[Scored], Sequence[float]],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    unit: str = PERCENT,
    seed: int = 0,
) -> Figure:
    """The same for a statistic of sums over rows, such as a ratio or F1.

    Args:
        features: what a row adds to each of the sums, K numbers.
        statistic: sums (K, D) -> value (D) of each draw; draws with a value that is no number do not count.
    """
    units = units_of(rows)
    sums = np.array([[fsum(column) for column in zip(*map(features, unit), strict=True)] for unit in units])
    total = np.array([[fsum(column)] for column in sums.T])
    chosen = np.concatenate([sums[block].sum(axis=1) for block in drawn(len(units), seed)]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        value, draws = statistic(total), statistic(chosen)
    return with_interval(float(value[0]), draws, rows, unit=unit)


def units_of(rows: Sequence[Scored]) -> list[list[Scored]]:
    """Rows by what is drawn together, in an order that does not depend on that of the rows."""
    if not rows:
        raise ValueError("no questions to draw from; give at least one.")
    units: dict[tuple[str, str], list[Scored]] = {}
    for row in in_order(rows):
        units.setdefault(row.unit, []).append(row)
    return [units[name] for name in sorted(units)]


def drawn(count: int, seed: int) -> Iterator[np.ndarray]:
    """Places of the units of each draw, in blocks (draws, count) that fit into memory."""
    rng = np.random.default_rng(seed)
    at_once = max(1, BLOCK // count)
    for start in range(0, DRAWS, at_once):
        yield rng.integers(count, size=(min(at_once, DRAWS - start), count))


def with_interval(value: float, draws: np.ndarray, rows: Sequence[Scored], *, unit: str) -> Figure:
    """The percentile interval.

    Where all draws agree they show no spread, and the interval is as wide as Wilson's for as many independent
    answers as there are pictures; points, whose scale is not known here, have none then.
    """
    draws = draws[np.isfinite(draws)]
    if len(draws) and np.ptp(draws) > SAME * max(1.0, abs(value)):
        low, high = (float(end) for end in np.percentile(draws, [2.5, 97.5]))
        return Figure(value, min(low, value), max(high, value), len(rows), unit, BOOTSTRAP)
    if unit != PERCENT:
        return Figure(value, None, None, len(rows), unit, None)
    room = 100 * wilson(0, len({row.unit for row in rows})).high
    low, high = max(0.0, value - room), max(value, min(100.0, value + room))
    return Figure(value, low, high, len(rows), unit, WILSON_PICTURES)


def evidence_line(headline: Figure, rows: Sequence[Scored]) -> str:
    """The line below a score, with its end."""
    sign = "%" if headline.unit == PERCENT else headline.unit
    interval = "no interval"
    if headline.low is not None and headline.high is not None:
        interval = f"95 % interval {headline.low:.1f} to {headline.high:.1f}, {headline.interval}"
    counts = counts_of(rows)
    return (
        f"Evidence: n={headline.n}, {headline.value:.1f} {sign} ({interval}), "
        f"{100 * counts['unparsable_share']:.1f} % unparsable, {counts['missing']} missing\n"
    )


def counts_of(rows: Sequence[Scored]) -> dict[str, float]:
    """How many questions were asked, and how many answers are missing or cannot be read."""
    unparsable = sum(row.unparsable for row in rows)
    share = round(unparsable / len(rows), 4) if rows else 0.0
    missing = sum(row.missing for row in rows)
    return {"asked": len(rows), "missing": missing, "unparsable": unparsable, "unparsable_share": share}


def publish(
    benchmark: str,
    figures: Mapping[str, Figure],
    headline: str,
    rows: Sequence[Scored],
    *,
    answers: Path | Sequence[Path],
    truth: Sequence[Path],
    results_dir: Path | None,
    run_of: Path | None = None,
    split: str | None = None,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Say the evidence of the headline and, with `results_dir`, write results.json and scored.jsonl there.

    Args:
        figures: name -> figure, `headline` among them.
        rows: one per question that was asked, ids differ.
        answers: the file that was scored, or several that were scored together.
        truth: the files that it was held against; their names differ.
        run_of: the answers file beside which the run is described, when it is another one (a judge's reviews
            are scored, but the answers' model is what counts).
    """
    say(evidence_line(figures[headline], rows))
    if results_dir is None:
        return
    files = [answers] if isinstance(answers, Path) else list(answers)
    run = read_run(files[0] if run_of is None else run_of)
    prompt = None if run is None else run.get("prompt")
    results = Results(
        benchmark=benchmark,
        split=split,
        headline=headline,
        figures=figures,
        questions=counts_of(rows),
        answers={
            "file": ", ".join(path.name for path in files),
            "sha256": ", ".join(sha256(path) for path in files),
        },
        truth={path.name: sha256(path) for path in truth},
        run=run,
        prompt=prompt if isinstance(prompt, str) else None,
        versions=versions(),
        extra=extra or {},
    )
    try:
        write_scored(results_dir / SCORED_NAME, rows)
        write_results(results_dir / FILE_NAME, results)
    except OSError as error:
        raise not_written(results_dir / FILE_NAME, error) from None


def read_run(answers: Path) -> dict[str, object] | None:
    """What the file beside the answers says of their run; None without one. `DataError` when damaged."""
    side = side_file(answers)
    return read_object(side, "file about the run of the answers") if side.is_file() else None


def sha256(path: Path) -> str:
    """A file's hash; a folder's is that of the names and contents of all text files in it."""
    if path.is_dir():
        lines = [f"{file.relative_to(path).as_posix()} {sha256(file)}\n" for file in path.rglob("*.txt")]
        return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_results_flag(options: CommandParser) -> None:
    """The flag of every scorer."""
    options.add_argument(
        "--results-dir", type=Path, help=f"folder for {FILE_NAME} and {SCORED_NAME}; by default not written"
    )
