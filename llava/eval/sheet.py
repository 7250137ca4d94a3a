"""The door to openpyxl: a table as an Excel file. Import it where a sheet is written, not before."""

from collections.abc import Sequence
from pathlib import Path

from llava.errors import UsageError

try:
    import openpyxl
except ImportError:
    raise UsageError('Excel files need openpyxl; install it with pip install -e ".[report]".') from None

from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

SHEET = "Sheet1"


def write_sheet(rows: Sequence[Sequence[str | int | None]], path: Path) -> None:
    """Write one sheet named Sheet1. Texts stay texts (`=1+1` too); control characters, which Excel's
    format cannot hold, are left out.
    """
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = SHEET
    for number, row in enumerate(rows, start=1):
        for column, value in enumerate(row, start=1):
            if value is None:
                continue
            cell = sheet.cell(number, column)
            if isinstance(value, str):
                cell.value = ILLEGAL_CHARACTERS_RE.sub("", value)
                cell.data_type = "s"
            else:
                cell.value = value
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
