"""MMBench's table: cells as pandas reads them, options turned round, and one message per malformed row."""

import base64
import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from llava.eval.mmbench_questions import Item, lettered, questions_of, read_items
from llava.records import DataError

COLUMNS = ("index", "question", "hint", "A", "B", "C", "D", "E", "image")


def picture(side: int = 4) -> str:
    """A grey picture as base64 text."""
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 80).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


GOOD = {"index": "7", "question": "What is it?", "A": "a cat", "B": "a dog", "image": picture()}


def table(*rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> str:
    """A table as pandas writes it."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def read(tmp_path: Path, text: str) -> list[Item]:
    """Items of a file with this text."""
    file = tmp_path / "table.tsv"
    file.write_bytes(text.encode())
    return read_items(file)


def changed(**changes: str) -> dict[str, str]:
    """A second row with changes."""
    return GOOD | {"index": "8"} | changes


def test_a_hint_comes_first_and_options_end_at_the_first_that_is_none(tmp_path: Path) -> None:
    rows = [
        GOOD,
        changed(index="8", hint="Look left."),
        changed(index="9", hint="nan", C="None", D="a boat"),
        changed(index="10", hint="N/A", C="a boat", D="Na", E="a fifth"),
        changed(index="11", A="", B=""),
    ]
    items = read(tmp_path, table(*rows))
    assert [item.index for item in items] == [7, 8, 9, 10, 11]
    assert [item.question for item in items] == [
        "What is it?", "Look left.\nWhat is it?", "What is it?", "What is it?", "What is it?"
    ]  # fmt: skip
    assert [item.options for item in items] == [
        ("a cat", "a dog"), ("a cat", "a dog"), ("a cat", "a dog"),
        ("a cat", "a dog", "a boat", "Na", "a fifth"), (),
    ]  # fmt: skip


def test_cells_in_quotes_hold_breaks_and_quotes_and_long_pictures(tmp_path: Path) -> None:
    question = 'Who said "no"?\n\tHe or she?'
    large = picture(400)
    assert len(large) > 131_072, "longer than the usual limit of a cell"
    items = read(tmp_path, table(changed(question=question, image=large), changed(index="9")))
    assert items[0].question == question
    assert items[0].image == large
    assert [item.place for item in items] == ["line 2 (index 8)", "line 4 (index 9)"]


def test_windows_line_ends_and_other_orders_of_columns_are_read(tmp_path: Path) -> None:
    text = table(GOOD, columns=("image", "B", "A", "question", "index")).replace("\n", "\r\n")
    assert read(tmp_path, "\ufeff" + text + "\r\n\r\n") == read(tmp_path, table(GOOD))


def test_indices_are_numbers_only_if_all_are(tmp_path: Path) -> None:
    items = read(tmp_path, table(GOOD, changed(index="b3")))
    assert [item.index for item in items] == ["7", "b3"]


@pytest.mark.parametrize("instruction", [None, "Letter only."])
def test_every_round_turns_the_options_by_one(instruction: str | None) -> None:
    item = Item(3, "Which?", ("x", "y", "z"), "", "line 2")
    first, second, third = questions_of(item, all_rounds=True, instruction=instruction)
    assert first.shown_prompt == "Which?\nA. x\nB. y\nC. z"
    assert second.shown_prompt == "Which?\nA. y\nB. z\nC. x"
    assert third.shown_prompt == "Which?\nA. z\nB. x\nC. y"
    for number, question in enumerate((first, second, third)):
        assert question.text == question.shown_prompt + (f"\n{instruction}" if instruction else "")
        assert question.round is not None
        assert question.round.round_id == number
        # the letters tell which option stands where: option_char[0] is the one shown as A
        original = dict(zip(("A", "B", "C"), item.options, strict=True))
        assert tuple(original[letter] for letter in question.round.option_char) == question.round.options
    assert questions_of(item, all_rounds=False, instruction=instruction) == [first]


def test_a_question_without_options_is_asked_once() -> None:
    (question,) = questions_of(Item(3, "Which?", (), "", "line 2"), all_rounds=True, instruction=None)
    assert question.shown_prompt == lettered("Which?", ()) == "Which?"


NO_PICTURE = base64.b64encode(b"%PDF-1.7 and so on").decode()
CASES = {
    "no index": (changed(index=""), ["line 3, index", "is empty"]),
    "no question": (changed(question="nan"), ["line 3 (index 8), question", "is empty"]),
    "<image>": (changed(B="<image>"), ["found <image>", "remove it"]),
    "no picture": (changed(image=""), ["image: is empty", "base64"]),
    "no base64": (changed(image="%%%"), ["image: no base64 text"]),
    "a file's name": (changed(image="cat.png"), ["no base64 text", "as base64 text"]),
    "no picture's bytes": (changed(image=NO_PICTURE), ["it is a PDF, no picture", "PNG"]),
    "asked twice": (changed(index="7"), ["line 3 (index 7), index", "line 2 has it too"]),
}


@pytest.mark.parametrize(("value", "parts"), CASES.values(), ids=CASES)
def test_a_malformed_row_is_told(tmp_path: Path, value: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, table(GOOD, value))
    for part in ["table.tsv: 1 problem", *parts]:
        assert part in str(caught.value)


TABLES = {
    "commas": (table(GOOD).replace("\t", ","), "no column index, question, image, A; the header has index,"),
    "no options": (table(GOOD, columns=("index", "question", "image", "B", "A")).replace("\tA", "\ta"),
                   "no column A"),
    "twice": (table(GOOD).replace("\thint", "\tA"), "has A twice"),
    "header only": (table(), "no rows below its header"),
    "too many cells": (table(GOOD) + "8\tq\t\ta\tb\tc\td\te\tf\tg\n", "line 3: found 10 cells for 9 columns"),
    "lone carriage return": (table(GOOD) + "8\tq\rr\t\ta\tb\n", "table.tsv line 3: new-line character seen"),
    "quote left open": (table(GOOD) + '8\t"q\t\ta\tb\n9\tq\n', "is a double quote left open?"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "part"), TABLES.values(), ids=TABLES)
def test_a_malformed_table_is_told(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert part in str(caught.value)


def test_all_rows_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 problems"):
        read(tmp_path, table(changed(question=""), GOOD, changed(index="9", image="?", A="<image>")))
