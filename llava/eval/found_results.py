"""Results files below a folder: where they lie, whose they are, and how their figures are shown."""

import os
from dataclasses import dataclass
from pathlib import Path

from llava.errors import UsageError
from llava.eval.results_file import FILE_NAME, PERCENT, Figure, Results, read_results
from llava.records import Problems, shorten, suggestion

COUNTS = ("asked", "missing", "unparsable", "unparsable_share")


@dataclass(frozen=True)
class Found:
    """A results file and its content."""

    file: Path
    results: Results

    @property
    def checkpoint(self) -> str:
        """The model's name as the run recorded it; without a record the name of the file's folder."""
        model_id = None if self.results.run is None else self.results.run.get("model_id")
        return str(model_id) if model_id else self.file.absolute().parent.name

    @property
    def key(self) -> tuple[str, str]:
        """Benchmark and split."""
        return self.results.benchmark, self.results.split or ""

    @property
    def title(self) -> str:
        """The benchmark with its split, where that says more."""
        benchmark, split = self.results.benchmark, self.results.split
        return benchmark if split in (None, benchmark) else f"{benchmark} ({split})"


def find_results(folder: Path) -> list[Path]:
    """All results.json in a folder and below, in the order of their paths; `UsageError` for no folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder{suggestion(folder)}; name the folder of the results.")
    return sorted(Path(parent) / FILE_NAME for parent, _, names in os.walk(folder) if FILE_NAME in names)


def read_found(file: Path) -> Found:
    """A results file. `DataError` lists what is wrong with it."""
    results, problems = read_results(file), Problems(file)
    for name in COUNTS:
        value = results.questions.get(name)
        if type(value) not in (int, float):
            problems.add(f"questions, {name}", f"found {shorten(value)}; a number was wanted, score anew")
    problems.raise_any()
    return Found(file, results)


def score_text(figure: Figure) -> str:
    """With one decimal: `78.3 %`, or `1510.7` for points."""
    return f"{figure.value:.1f} %" if figure.unit == PERCENT else f"{figure.value:.1f}"


def interval_text(figure: Figure) -> str:
    """`66.4 to 86.9`; nothing without an interval."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{figure.low:.1f} to {figure.high:.1f}"
