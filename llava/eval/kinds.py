"""Figures of the kinds that questions are of (category, type, concern), beside the headline."""

from collections.abc import Mapping, Sequence

from llava.eval.evidence import figure
from llava.eval.results_file import Figure
from llava.eval.scored_file import Scored


def by_kind(title: str, rows: Sequence[Scored], kinds: Sequence[str | None]) -> dict[str, Figure]:
    """`TITLE: KIND` -> accuracy, in alphabetical order; `kinds` holds one entry per row, None for none."""
    groups: dict[str, list[Scored]] = {}
    for row, kind in zip(rows, kinds, strict=True):
        if kind is not None:
            groups.setdefault(kind, []).append(row)
    return {f"{title}: {kind}": figure(groups[kind]) for kind in sorted(groups)}


def figure_lines(figures: Mapping[str, Figure]) -> str:
    """A line per figure: `type: how: 61.36% (n=132)`."""
    return "".join(f"{name}: {one.value:.2f}% (n={one.n})\n" for name, one in figures.items())
