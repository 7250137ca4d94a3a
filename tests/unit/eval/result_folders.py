"""Folders of results as scorers write them, for tests of what reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.eval.evidence import Scored, figure
from llava.eval.results_file import FILE_NAME, Figure, Results, write_results
from llava.eval.scored_file import FILE_NAME as SCORED_NAME
from llava.eval.scored_file import write_scored


def scored(values: Sequence[float], *, per_picture: int = 1) -> list[Scored]:
    """One row per value, so many on each picture."""
    return [Scored(str(k), value, f"p{k // per_picture}", parsed="a") for k, value in enumerate(values)]


def write_folder(
    folder: Path,
    rows: Sequence[Scored],
    *,
    benchmark: str = "gqa",
    split: str | None = None,
    model_id: str | None = None,
    truth: Mapping[str, str] | None = None,
    more: Mapping[str, Figure] | None = None,
) -> Path:
    """results.json and scored.jsonl; the first one's path."""
    unparsable = sum(row.unparsable for row in rows)
    results = Results(
        benchmark=benchmark,
        split=split,
        headline="accuracy",
        figures={**(more or {}), "accuracy": figure(rows)},
        questions={
            "asked": len(rows),
            "missing": sum(row.missing for row in rows),
            "unparsable": unparsable,
            "unparsable_share": unparsable / len(rows),
        },
        answers={"file": "merge.jsonl", "sha256": "0" * 64},
        truth=truth or {"truth.json": "1" * 64},
        run=None if model_id is None else {"model_id": model_id},
        prompt=None,
        versions={},
    )
    write_scored(folder / SCORED_NAME, rows)
    write_results(folder / FILE_NAME, results)
    return folder / FILE_NAME
