"""Tables as text: for the terminal, for Markdown, for CSV. All cells are texts."""

import csv
import io
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llava.terminal import visible

GAP = "  "


@dataclass(frozen=True)
class Table:
    """A heading and rows of as many cells; columns in `numbers` are set to the right."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.heading) for row in self.rows), "a cell for each column"


def terminal(table: Table) -> str:
    """Columns as wide as their widest cell, a line below the heading."""
    shown = [[one_line(cell) for cell in row] for row in (table.heading, *table.rows)]
    widths = [max(width(row[column]) for row in shown) for column in range(len(table.heading))]
    lines = [GAP.join(padded(row, widths, table.numbers)).rstrip() for row in shown]
    rule = GAP.join("-" * size for size in widths)
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown; nothing in a cell is markup."""
    marks = ["---:" if column in table.numbers else "---" for column in range(len(table.heading))]
    rows = [[plain(cell) for cell in row] for row in (table.heading, *table.rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], marks, *rows[1:]))


def comma_separated(table: Table) -> str:
    """CSV with a heading. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.heading)
    writer.writerows([[harmless(cell) for cell in row] for row in table.rows])
    return text.getvalue()


FORMATS: dict[str, Callable[[Table], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "csv": comma_separated,
}
"""By the value of --format."""


def padded(row: Sequence[str], widths: Sequence[int], numbers: frozenset[int]) -> list[str]:
    """Cells filled up with blanks, on the left where a column holds numbers."""
    cells = []
    for column, (cell, size) in enumerate(zip(row, widths, strict=True)):
        blanks = " " * (size - width(cell))
        cells.append(blanks + cell if column in numbers else cell + blanks)
    return cells


def width(text: str) -> int:
    """Places that a text takes on a terminal: two for a wide letter, none for an accent by itself."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def one_line(text: str) -> str:
    """A text without line ends and tabs, nothing hidden in it."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def plain(text: str) -> str:
    """A text in which Markdown and HTML find nothing of theirs."""
    shown = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#!" else letter for letter in shown)


def harmless(text: str) -> str:
    """A cell that no spreadsheet computes; numbers stay numbers."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text
    return text
