"""Tables for the terminal, Markdown and CSV: aligned, and nothing in a cell is more than text."""

import csv
import io

from llava.eval.text_tables import Table, comma_separated, markdown, terminal, width

TABLE = Table(("name", "n"), (("pope", "8910"), ("质衡", "7")), numbers=frozenset({1}))


def test_a_terminal_table_is_aligned_by_shown_width() -> None:
    assert terminal(TABLE) == "name     n\n----  ----\npope  8910\n质衡     7\n"
    assert {width(line) for line in terminal(TABLE).splitlines()} == {10}


def test_nothing_in_a_cell_steers_the_terminal() -> None:
    text = terminal(Table(("a",), (("x\x1b[2J\ny",),)))
    assert "\x1b" not in text
    assert text.splitlines()[2] == "x\\x1b[2J\\ny"


def test_markdown() -> None:
    assert markdown(TABLE) == "| name | n |\n| --- | ---: |\n| pope | 8910 |\n| 质衡 | 7 |\n"
    row = markdown(Table(("a",), (("a|b <b>*x*`",),))).splitlines()[2]
    assert row == "| a\\|b &lt;b>\\*x\\*\\` |"


def test_csv_reads_back_and_holds_no_formula() -> None:
    cells = ("a,b", 'say "x"', "-1.5", "=1+1", "two\nlines")
    text = comma_separated(Table(tuple("vwxyz"), (cells,)))
    assert list(csv.reader(io.StringIO(text)))[1] == ["a,b", 'say "x"', "-1.5", "'=1+1", "two\nlines"]


def test_a_table_without_rows() -> None:
    assert terminal(Table(("a", "b"), ())) == "a  b\n-  -\n"
