"""`results.json`: the figures of one benchmark with all that they rest on, written beside the answers."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llava.durable import write_whole
from llava.records import Problems, kind_of, read_object, shorten

FILE_NAME = "results.json"
WANTED = "results.json of a scored benchmark"
FORMAT = 1
DIGITS = 4
PERCENT, POINTS = "percent", "points"


@dataclass(frozen=True)
class Figure:
    """A score with its 95 % interval.

    Attributes:
        value: 0 to 100 where the unit is "percent".
        low: lower end of the interval, None where there is none.
        n: how many questions it is over.
        unit: "percent" or "points".
        interval: how the interval was made ("Wilson", "bootstrap over pictures"), None without one.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    unit: str
    interval: str | None


@dataclass(frozen=True)
class Results:
    """The content of a results.json.

    Attributes:
        headline: the name of the figure that stands for the benchmark.
        questions: "asked", "missing", "unparsable" and "unparsable_share" (0 to 1).
        answers: "file" (its name) and "sha256" of the answers that were scored.
        truth: file name -> SHA-256 of what they were held against.
        run: what the file beside the answers says about the model, None without one.
        prompt: how the model was asked, with {question} for a question; None where that is not known.
        versions: package -> version, of the scoring.
    """

    benchmark: str
    split: str | None
    headline: str
    figures: Mapping[str, Figure]
    questions: Mapping[str, float]
    answers: Mapping[str, str]
    truth: Mapping[str, str]
    run: Mapping[str, Any] | None
    prompt: str | None
    versions: Mapping[str, str]
    extra: Mapping[str, Any] = field(default_factory=dict)


def write_results(path: Path, results: Results) -> None:
    """Write the file whole. Figures are rounded to four digits and must be numbers."""
    row = {"format": FORMAT, **vars(results)}
    row["figures"] = {name: figure_row(figure) for name, figure in results.figures.items()}
    write_whole(path, json.dumps(row, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def figure_row(figure: Figure) -> dict[str, object]:
    """A figure as JSON."""
    rounded = {
        key: value if value is None else round(value, DIGITS)
        for key, value in (("value", figure.value), ("low", figure.low), ("high", figure.high))
    }
    return asdict(figure) | rounded


def read_results(path: Path) -> Results:
    """A results.json. `DataError` lists all that is wrong with it."""
    row, problems = read_object(path, WANTED), Problems(path)
    if row.get("format") != FORMAT:
        problems.add("format", f"found {shorten(row.get('format'))}; {FORMAT} was wanted, score anew")
        problems.raise_any()
    kinds = {
        "benchmark": str, "split": str | None, "headline": str, "figures": dict, "questions": dict,
        "answers": dict, "truth": dict, "run": dict | None, "prompt": str | None, "versions": dict,
        "extra": dict,
    }  # fmt: skip
    for key, kind in kinds.items():
        if key not in row or not isinstance(row[key], kind):
            problems.add(key, f"found {kind_of(row.get(key))}; another kind was wanted, score anew")
    problems.raise_any()
    values: dict[str, Any] = {key: row[key] for key in kinds}
    figures = {name: figure_of(name, entry, problems) for name, entry in values["figures"].items()}
    if values["headline"] not in figures:
        problems.add("headline", f"found {shorten(values['headline'])}, but no such figure; score anew")
    problems.raise_any()
    return Results(**values | {"figures": figures})


def figure_of(name: str, entry: object, problems: Problems) -> Figure | None:
    """One figure, or None when something is wrong with it."""
    keys = Figure.__dataclass_fields__
    if not isinstance(entry, dict) or set(entry) != set(keys):
        problems.add(f"figures, {name}", f"found {shorten(entry)}; {', '.join(keys)} were wanted")
        return None
    numbers = [entry["value"], entry["n"], *(entry[key] for key in ("low", "high") if entry[key] is not None)]
    if not all(type(one) in (int, float) and math.isfinite(one) for one in numbers):
        problems.add(f"figures, {name}", f"found {shorten(entry)}; numbers were wanted")
        return None
    return Figure(**entry)
