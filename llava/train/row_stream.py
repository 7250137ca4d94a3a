"""Rows of a conversation file one after the other: a file of any size, never all of it in memory.

Equal to `llava.records.read_rows`, its rows and its messages; that one holds the whole file, and does not
know the row where JSON has no line to tell.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from llava.records import (
    CHUNK_BYTES,
    DataError,
    Problems,
    Row,
    describe_json_error,
    is_json_lines,
    kind_of,
    parse_json,
    rows_of_lines,
    text_chunks,
)
from llava.strict_json import DECODER

BLANKS = re.compile(r"[ \t\n\r]*")
LONGEST_WORD = 16
"""A number, a literal or an escape that a window cuts ends within so many characters of the window's end."""
SHOWN_AHEAD = 100


def stream_rows(
    path: Path, wanted: str, *, chunk_bytes: int = CHUNK_BYTES, broken: list[str] | None = None
) -> Iterator[Row]:
    """The rows of a JSON array or of JSON lines, in order.

    `DataError` when the file is no such thing, also after rows have been given: what was made of them is then
    to be dropped. What is wrong with single lines of JSON lines goes to `broken` where that is given.
    """
    window = Window(text_chunks(path, wanted, size=chunk_bytes))
    while not window.text.strip() and window.more():
        pass
    if window.text.lstrip().startswith("["):
        yield from rows_of_array(window, path, wanted)
        return
    while not has_second_line(window.text) and window.more(twice=True):
        pass
    if is_json_lines(window.text):
        told: list[str] = [] if broken is None else broken
        yield from rows_of_lines(window.lines(), told)
        if broken is None:
            Problems(path, told).raise_any()
        return
    refuse_other_values(window, path)


def has_second_line(text: str) -> bool:
    """Whether the first line that is not blank is there, and what the next one begins with."""
    _, end, following = text.lstrip().partition("\n")
    return bool(end) and len(following) > 1


def refuse_other_values(window: "Window", path: Path) -> NoReturn:
    """`DataError` for a file that holds neither lines nor an array."""
    while window.more(twice=True):
        pass
    try:
        value = parse_json(window.text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.") from None
    raise DataError(
        f"{path}: the top level is {kind_of(value)}; an array was wanted, put [ and ] around the rows."
    )


class Window:
    """The part of a text that is being read: it grows at its end, what is done with is dropped at its start.

    `line` and `column` count what was dropped, for messages.
    """

    def __init__(self, chunks: Iterator[str]) -> None:
        self.chunks = chunks
        self.text = ""
        self.line = self.column = 0
        self.complete = False

    def more(self, *, twice: bool = False) -> bool:
        """Read on, until the window has doubled if `twice`; False at the end of the text."""
        pieces, wanted = [self.text], len(self.text) if twice else 1
        while wanted > 0 and not self.complete:
            piece = next(self.chunks, None)
            self.complete = piece is None
            pieces.append(piece or "")
            wanted -= len(piece or "")
        grown = "".join(pieces)
        has_grown = len(grown) > len(self.text)
        self.text = grown
        return has_grown

    def drop(self, end: int) -> None:
        """Forget the text before `end`."""
        self.line += self.text.count("\n", 0, end)
        start = self.text.rfind("\n", 0, end)
        self.column = self.column + end if start < 0 else end - start - 1
        self.text = self.text[end:]

    def lines(self) -> Iterator[str]:
        """The lines of the text, without what ends them."""
        pieces = [self.text]
        for chunk in self.chunks:
            if "\n" not in chunk:
                pieces.append(chunk)
                continue
            *whole, rest = "".join([*pieces, chunk]).split("\n")
            yield from whole
            pieces = [rest]
        yield from "".join(pieces).split("\n")

    def skip_blanks(self, place: int) -> int:
        """Where the next character that is no blank stands; the text's end if there is none."""
        while (place := BLANKS.match(self.text, place).end()) == len(self.text) and self.more():  # type: ignore[union-attr]
            pass
        return place

    def value(self, start: int) -> tuple[object, int]:
        """The JSON value at `start`, and where it ends. `ValueError` with line, column and remedy."""
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, start)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string")
                if (unfinished or error.pos + LONGEST_WORD > len(self.text)) and self.more(twice=True):
                    continue
                raise self.located(error) from None
            except RecursionError:
                raise ValueError("nested too deeply; rows hold plain texts and lists") from None
            if end + LONGEST_WORD <= len(self.text) or not self.more(twice=True):
                return value, end  # else it may be a number that goes on: 1 of 1.5

    def located(self, error: json.JSONDecodeError) -> ValueError:
        """The message for an error within the window, with its place in the whole text."""
        while (
            not self.text[error.pos :].strip() or len(self.text) < error.pos + SHOWN_AHEAD
        ) and self.more():
            pass
        if error.lineno == 1:
            error.colno += self.column
        error.lineno += self.line
        return ValueError(describe_json_error(self.text, error, 1))


def rows_of_array(window: Window, path: Path, wanted: str) -> Iterator[Row]:
    """The values of the array that the window begins with."""
    number = -1
    try:
        for number, value in enumerate(array_values(window)):
            yield Row(number, f"row {number}", value)
    except DataError:
        raise
    except ValueError as error:
        for _ in window.chunks:  # damage further on, as a NUL byte, explains it better
            pass
        place = "" if str(error).startswith("line ") else f"row {number + 1}: "
        raise DataError(f"{path} is not JSON: {place}{error}.") from None
    if number < 0:
        raise DataError(f"{path} holds no rows; a {wanted} was wanted.")


def array_values(window: Window) -> Iterator[object]:
    """The values of an array, and nothing behind it. `ValueError` with line, column and remedy."""
    place = window.skip_blanks(0)
    if window.text[place] != "[":
        raise window.located(json.JSONDecodeError("Expecting value", window.text, place))
    separator = "["
    while separator != "]":
        window.drop(place)
        place = window.skip_blanks(1)
        if separator == "[" and window.text.startswith("]", place):
            break
        value, place = window.value(place)
        yield value
        place = window.skip_blanks(place)
        separator = window.text[place : place + 1]
        if separator not in (",", "]"):
            raise window.located(json.JSONDecodeError("Expecting ',' delimiter", window.text, place))
    place = window.skip_blanks(place + 1)
    if place < len(window.text):
        raise window.located(json.JSONDecodeError("Extra data", window.text, place))
