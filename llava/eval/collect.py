"""One table of all scores below a folder: benchmark, checkpoint, score with its interval, and its evidence.

    python -m llava.eval.collect playground/data/eval
    python -m llava.eval.collect playground/data/eval --format markdown --out scores.md

Reads every results.json that the scorers write with --results-dir; --all shows all figures of each, not only
the headline. CSV has plain numbers, one per cell.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.answer_files import write_or_say
from llava.eval.found_results import Found, find_results, interval_text, read_found, score_text
from llava.eval.results_file import Figure
from llava.eval.text_tables import FORMATS, Table
from llava.records import DataError
from llava.terminal import note

ORDER = (
    "vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn", "seed",
    "llavabench", "mmvet", "qbench", "qbench_zh",
)  # fmt: skip
"""As in LLaVA-1.5's own table; others follow by name."""
HEADING = ("benchmark", "checkpoint", "figure", "score", "95 % interval", "n", "unparsable", "missing")
CSV_HEADING = (
    "benchmark", "split", "checkpoint", "figure", "value", "low", "high", "unit", "interval", "n",
    "asked", "unparsable", "missing", "file",
)  # fmt: skip


def parser() -> CommandParser:
    """Flags."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("folder", type=Path, help="all results.json files in it and below are shown")
    add("--format", choices=sorted(FORMATS), default="terminal", help="of the table")
    add("--all", action="store_true", help="all figures of each benchmark, not only the headline")
    add("--out", type=Path, default=None, help="file to write instead of the terminal")
    return options


def place_of(found: Found) -> tuple[int, str, str, str, str]:
    """A sort key: the benchmarks of LLaVA-1.5's table in its order, then the others by name."""
    name = found.results.benchmark
    known = ORDER.index(name) if name in ORDER else len(ORDER)
    return known, name, found.results.split or "", found.checkpoint, str(found.file)


def shown_names(results: Sequence[Found], folder: Path) -> dict[Path, str]:
    """File -> how its checkpoint is called: with its folder where one name stands for two results."""
    seen = Counter((*one.key, one.checkpoint) for one in results)
    return {
        one.file: one.checkpoint
        if seen[(*one.key, one.checkpoint)] == 1
        else f"{one.checkpoint} ({one.file.parent.relative_to(folder)})"
        for one in results
    }


def chosen(found: Found, *, every: bool) -> Mapping[str, Figure]:
    """The figures of a result that are shown, the headline first."""
    figures, headline = found.results.figures, found.results.headline
    return {headline: figures[headline], **(figures if every else {})}


def readable_table(results: Sequence[Found], names: Mapping[Path, str], *, every: bool) -> Table:
    """For people: a score with one decimal, its interval, and how many answers were unparsable or missing."""
    rows = []
    for one in results:
        counts = one.results.questions
        share, missing = f"{100 * counts['unparsable_share']:.1f} %", str(counts["missing"])
        for name, figure in chosen(one, every=every).items():
            texts = (name, score_text(figure), interval_text(figure), str(figure.n))
            gaps = (share, missing) if name == one.results.headline else ("", "")  # of the whole benchmark
            rows.append((one.title, names[one.file], *texts, *gaps))
    return Table(HEADING, tuple(rows), numbers=frozenset((3, 5, 6, 7)))


def exact_table(results: Sequence[Found], names: Mapping[Path, str], folder: Path, *, every: bool) -> Table:
    """For programs: each number in a cell of its own, as results.json has it."""
    rows = []
    for one in results:
        whose = (one.results.benchmark, one.results.split or "", names[one.file])
        counts = (str(one.results.questions[name]) for name in ("asked", "unparsable", "missing"))
        tail = (*counts, str(one.file.relative_to(folder)))
        for name, figure in chosen(one, every=every).items():
            ends = ("" if end is None else repr(end) for end in (figure.value, figure.low, figure.high))
            rows.append((*whose, name, *ends, figure.unit, figure.interval or "", str(figure.n), *tail))
    return Table(CSV_HEADING, tuple(rows))


def read_all(files: Sequence[Path]) -> list[Found]:
    """The results of files; one that cannot be used is told and left out. `DataError` when none can."""
    results, problems = [], []
    for file in files:
        try:
            results.append(read_found(file))
        except DataError as error:
            problems.append(str(error))
    if not results:
        raise DataError("\n".join(problems))
    for problem in problems:
        note(f"left out: {problem}\n")
    return sorted(results, key=place_of)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print or write the table."""
    options = parser().parse(argv)
    files = find_results(options.folder)
    if not files:
        raise UsageError(
            f"{options.folder} holds no results.json, nor does any folder below; score answers with "
            "--results-dir, or run a script of scripts/v1.5/eval."
        )
    results = read_all(files)
    names = shown_names(results, options.folder)
    if options.format == "csv":
        table = exact_table(results, names, options.folder, every=options.all)
    else:
        table = readable_table(results, names, every=options.all)
    text = FORMATS[options.format](table)
    write_or_say(text, options.out)


if __name__ == "__main__":
    main()
