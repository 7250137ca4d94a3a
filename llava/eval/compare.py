"""Two models on the same questions: paired differences with intervals, and McNemar's exact test.

    python -m llava.eval.compare pope/answers/llava-v1.5-7b pope/answers/mine
    python -m llava.eval.compare runs/before runs/after --format markdown

A and B are results.json files or folders with such files below; benchmarks that both have are compared, each
question with itself. The difference is B minus A in what a question earns on average, in points of per cent:
for most benchmarks their accuracy, for POPE accuracy and not F1, for MME that of single questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.answer_files import write_or_say
from llava.eval.evidence import bootstrap_sums
from llava.eval.found_results import Found, find_results, interval_text, read_found, score_text
from llava.eval.intervals import mcnemar
from llava.eval.metrics.pairing import compare_ids, tell
from llava.eval.results_file import POINTS, Figure
from llava.eval.scored_file import FILE_NAME as SCORED_NAME
from llava.eval.scored_file import Scored, read_scored
from llava.eval.text_tables import FORMATS, Table
from llava.records import DataError
from llava.terminal import note

HEADING = (
    "benchmark", "figure", "A", "B", "questions", "A each", "B each", "B - A", "95 % interval",
    "only A right", "only B right", "McNemar p",
)  # fmt: skip
ALONE = "question is scored in one of them only|questions are scored in one of them only"


@dataclass(frozen=True)
class Comparison:
    """Two scored files, question by question.

    Attributes:
        means: what a question earns on average in A and in B, 0 to 100.
        difference: B minus A, in points, by a bootstrap over pictures.
        lost: questions that only A has right, gained: that only B has; None where values are no 0 or 1.
    """

    means: tuple[float, float]
    difference: Figure
    lost: int | None
    gained: int | None

    @property
    def p_value(self) -> float | None:
        """McNemar's exact two-sided test; None where values are no 0 or 1."""
        return None if self.lost is None or self.gained is None else mcnemar(self.lost, self.gained)


def parser() -> CommandParser:
    """Flags."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("first", metavar="A", type=Path, help="results.json, or a folder with such files in it or below")
    add("second", metavar="B", type=Path, help="the same of the other model")
    add("--format", choices=sorted(FORMATS), default="terminal", help="of the table")
    add("--out", type=Path, default=None, help="file to write instead of the terminal")
    return options


def paired(first: Mapping[str, Scored], second: Mapping[str, Scored]) -> list[tuple[Scored, Scored]]:
    """The questions that both have, in an order that is always the same."""
    return [(first[name], second[name]) for name in sorted(first.keys() & second.keys())]


def compare_pairs(pairs: Sequence[tuple[Scored, Scored]]) -> Comparison:
    """Differences of at least one pair."""
    gaps = [Scored(one.question_id, other.value - one.value, one.image) for one, other in pairs]
    difference = bootstrap_sums(
        gaps, lambda row: (row.value, 1.0), lambda sums: 100 * sums[0] / sums[1], unit=POINTS
    )
    means = tuple(100 * sum(row.value for row in rows) / len(rows) for rows in zip(*pairs, strict=True))
    binary = all(row.value in (0, 1) for pair in pairs for row in pair)
    lost = sum(gap.value < 0 for gap in gaps) if binary else None
    gained = sum(gap.value > 0 for gap in gaps) if binary else None
    return Comparison((means[0], means[1]), difference, lost, gained)


def results_of(path: Path) -> dict[tuple[str, str], Found]:
    """(benchmark, split) -> result; `UsageError` when a folder has two of one benchmark, or none."""
    files = find_results(path) if path.is_dir() else [path]
    if not files:
        raise UsageError(
            f"{path} holds no results.json, nor does any folder below; name a folder of results."
        )
    found: dict[tuple[str, str], Found] = {}
    for result in map(read_found, files):
        other = found.setdefault(result.key, result)
        if other is not result:
            raise UsageError(
                f"{path} holds two results of {result.title}: {other.file} and {result.file}; name one of "
                "their folders."
            )
    return found


def scores_of(found: Found) -> dict[str, Scored]:
    """Question id -> its score."""
    return {row.question_id: row for row in read_scored(found.file.with_name(SCORED_NAME))}


def refuse_other_truth(first: Found, second: Found) -> None:
    """`DataError` when the two were held against different files."""
    ours, theirs = first.results.truth, second.results.truth
    changed = sorted(name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name])
    if changed:
        raise DataError(
            f"{first.file} and {second.file} were scored against different contents of {', '.join(changed)}; "
            "score both against the same files."
        )


def compare_results(first: Found, second: Found) -> Comparison:
    """Two results of one benchmark. `DataError` when they have no question in common."""
    refuse_other_truth(first, second)
    ours, theirs = scores_of(first), scores_of(second)
    pairs = paired(ours, theirs)
    if not pairs:
        raise DataError(
            f"{first.file} and {second.file} have no question in common; name results of one split."
        )
    coverage = compare_ids(ours, theirs)
    alone = (*coverage.missing, *coverage.unknown)
    if alone:
        note(f"{first.title}: {tell(alone, ALONE)}; left out\n")
    return compare_pairs(pairs)


def row_of(first: Found, second: Found, comparison: Comparison) -> tuple[str, ...]:
    """A row of the table."""
    headline, other = first.results.headline, second.results.headline
    figures = (first.results.figures[headline], second.results.figures[other])
    gap, p_value = comparison.difference, comparison.p_value
    counts = ("" if count is None else str(count) for count in (comparison.lost, comparison.gained))
    return (
        first.title,
        headline if headline == other else f"{headline} / {other}",
        *map(score_text, figures),
        str(gap.n),
        *(f"{mean:.1f} %" for mean in comparison.means),
        f"{gap.value:+.1f}",
        interval_text(gap),
        *counts,
        "" if p_value is None else f"{p_value:.2g}",
    )


def heading_text(first: Mapping[object, Found], second: Mapping[object, Found]) -> str:
    """Which models A and B are."""
    names = ((side, sorted({one.checkpoint for one in found.values()})) for side, found in
             (("A", first), ("B", second)))  # fmt: skip
    return "\n".join(f"{side}: {', '.join(checkpoints)}" for side, checkpoints in names) + "\n\n"


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print or write the table."""
    options = parser().parse(argv)
    first, second = results_of(options.first), results_of(options.second)
    both = sorted(first.keys() & second.keys())
    if not both:
        titles = (", ".join(sorted(one.title for one in found.values())) for found in (first, second))
        raise UsageError("A has {}, B has {}; name results of the same benchmark.".format(*titles))
    for key in sorted(first.keys() ^ second.keys()):
        note(f"{(first.get(key) or second[key]).title}: in one of them only, left out\n")
    rows = [row_of(first[key], second[key], compare_results(first[key], second[key])) for key in both]
    table = Table(HEADING, tuple(rows), numbers=frozenset(range(2, len(HEADING))))
    head = "" if options.format == "csv" else heading_text(first, second)
    text = head + FORMATS[options.format](table)
    write_or_say(text, options.out)


if __name__ == "__main__":
    main()
