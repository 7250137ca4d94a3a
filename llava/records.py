"""Rows of the JSON files that users bring, and the pictures that rows name, read with all problems collected.

A problem names row, field, what was found and wanted, and the remedy; those of a file are raised together.
"""

import codecs
import difflib
import itertools
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from llava.errors import UsageError
from llava.strict_json import DECODER

SHOWN_PROBLEMS = 20
CHUNK_BYTES = 1 << 16
LARGEST_FOLDER = 5000
"""Names of larger folders are not compared one by one when a near one is looked for."""
PLAIN_NAME = re.compile(r"(?:[\w-][\w .-]*/)*[\w-][\w .-]*", re.ASCII)
"""Names that stay within their folder and are no URL, whatever the system."""


class DataError(UsageError):
    """A data file cannot be used; the message lists its problems."""


@dataclass(frozen=True)
class Row:
    """A row of a file: its number from 0, how messages call it, and its JSON value."""

    number: int
    place: str
    value: object


@dataclass
class Problems:
    """Collects what is wrong with one file."""

    path: Path
    messages: list[str] = field(default_factory=list)

    def add(self, place: str, what: str) -> None:
        """`place`: row and field; `what`: found, wanted, remedy."""
        self.messages.append(f"{place}: {what}")

    def raise_any(self) -> None:
        """`DataError` with the first problems and the number of all, if there is one."""
        if not self.messages:
            return
        count = len(self.messages)
        lines = [f"{self.path}: {count} problem{'s' * (count > 1)} (rows are counted from 0, lines from 1)"]
        lines += [f"  {message}" for message in self.messages[:SHOWN_PROBLEMS]]
        if count > SHOWN_PROBLEMS:
            lines.append(f"  and {count - SHOWN_PROBLEMS} more")
        raise DataError("\n".join(lines))


def shorten(value: object, limit: int = 60) -> str:
    """A value for a message, in one short line."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 4] + "..." + text[-1]


def kind_of(value: object) -> str:
    """JSON's word for a value's type."""
    if isinstance(value, str | list | dict):
        return {str: "a text", list: "an array", dict: "an object"}[type(value)]
    return "null" if value is None else "true or false" if isinstance(value, bool) else "a number"


def near_name(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that was probably meant: equal but for case and blanks, else the most similar one."""
    names = list(names)
    for other in names:
        if other.lower() == name.strip().lower():
            return other
    if len(names) > LARGEST_FOLDER:
        return None
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=cutoff)), None)


def suggestion(path: Path) -> str:
    """`; did you mean X?` for a path that does not exist, else nothing."""
    try:
        near = near_name(path.name, os.listdir(path.parent))
    except OSError:
        return ""
    return f"; did you mean {path.parent / near}?" if near else ""


def read_text(path: Path, wanted: str) -> str:
    """A UTF-8 file, with or without a byte-order mark; `DataError` for anything else than `wanted`."""
    return "".join(text_chunks(path, wanted))


def text_chunks(path: Path, wanted: str, *, size: int = CHUNK_BYTES) -> Iterator[str]:
    """The text of a UTF-8 file in pieces of `size` bytes; `DataError` for anything else than `wanted`."""
    if os.path.isdir(path):  # unlike Path's method False where the path cannot be looked at
        raise DataError(f"{path} is a folder; name the {wanted} itself.")
    try:
        with path.open("rb") as file:
            yield from decode_chunks(iter(lambda: file.read(size), b""), path, wanted)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist{suggestion(path)}; name a {wanted}.") from None
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); check its permissions.") from None


def decode_chunks(chunks: Iterable[bytes], path: Path, wanted: str) -> Iterator[str]:
    """Bytes of a file to its text; `DataError` for what is no UTF-8 text, and for blanks only."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    num_lines, blank, head = 0, True, b""
    for content in itertools.chain(chunks, [b""]):
        if len(head) < 2:
            head += content[:2]
            refuse_other_kinds(head, path)
        if b"\0" in content:
            line = num_lines + content[: content.index(b"\0")].count(b"\n") + 1
            raise DataError(f"{path} line {line}: a NUL byte; the file is damaged, copy it again.")
        blank = blank and not content.strip()
        try:
            text = decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            line = num_lines + error.object[: error.start].count(b"\n") + 1
            found = f"byte {error.object[error.start]:#x} is not UTF-8"
            raise DataError(f"{path} line {line}: {found}; save the file in UTF-8.") from None
        num_lines += content.count(b"\n")
        yield text
    if blank:
        raise DataError(f"{path} is empty; a {wanted} was wanted.")


def refuse_other_kinds(head: bytes, path: Path) -> None:
    """`DataError` for files that begin as gzip or UTF-16 do."""
    if head.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is compressed with gzip; unpack it first (gunzip).")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is in UTF-16; save it in UTF-8.")


def parse_json(text: str, first_line: int = 1) -> object:
    """JSON to a value. `ValueError` with line, column and remedy."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(describe_json_error(text, error, first_line)) from None
    except RecursionError:
        raise ValueError("nested too deeply; rows hold plain texts and lists") from None


def describe_json_error(text: str, error: json.JSONDecodeError, first_line: int) -> str:
    """Where JSON breaks off, what stands there, and what to do."""
    place = f"line {error.lineno + first_line - 1}, column {error.colno}"
    before, rest = text[: error.pos].rstrip(), text[error.pos :].strip()
    if not rest or error.msg.startswith("Unterminated string"):
        return f"{place}: the JSON ends in the middle; the file was cut off, copy or write it again"
    comma = re.match(r",\s*([]}])", rest)  # Python 3.13 tells the comma's place, earlier ones the bracket's
    if comma or (before.endswith(",") and rest[0] in "]}"):
        return f"{place}: a comma before the closing {comma[1] if comma else rest[0]}; remove it"
    if rest.startswith(("//", "/*", "#")):
        return f"{place}: a comment, {shorten(rest.splitlines()[0])}; JSON has none, remove it"
    if error.msg == "Extra data" and rest[0] == ",":
        return f"{place}: a comma behind the row; remove it, or put [ and ] around all rows"
    if "'" in (rest[0], before[-1:]):
        return f"{place}: JSON wants double quotes, found {shorten(rest[:20])}"
    found = shorten(rest[:20])
    if error.msg.startswith("Invalid control character"):
        return f"{place}: a line break or control character inside a string; write \\n for a line break"
    return f"{place}: {error.msg}, found {found}; correct the JSON there"


def read_rows(path: Path, wanted: str) -> list[Row]:
    """The rows of a JSON array or of JSON lines (without blank ones). `DataError` lists what is not JSON."""
    text = read_text(path, wanted)
    if is_json_lines(text):
        return read_lines(path, text)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, list):
        raise DataError(
            f"{path}: the top level is {kind_of(value)}; an array was wanted, put [ and ] around the rows."
        )
    if not value:
        raise DataError(f"{path} holds no rows; a {wanted} was wanted.")
    return [Row(number, f"row {number}", row) for number, row in enumerate(value)]


def is_json_lines(text: str) -> bool:
    """Whether the first line that is not blank is an object, complete or cut off but followed by others."""
    lines = text.lstrip().split("\n", 2)
    if not lines[0].startswith("{"):
        return False
    return lines[0].rstrip().endswith("}") or (len(lines) > 1 and lines[1].startswith('{"'))


def read_lines(path: Path, text: str) -> list[Row]:
    """JSON lines to rows; all broken lines are told at once."""
    rows, broken = parse_lines(text)
    Problems(path, broken).raise_any()
    return rows


def parse_lines(text: str) -> tuple[list[Row], list[str]]:
    """JSON lines to rows, and what is wrong with each line that is no JSON; blank lines are neither."""
    broken: list[str] = []
    return list(rows_of_lines(text.split("\n"), broken)), broken


def rows_of_lines(lines: Iterable[str], broken: list[str]) -> Iterator[Row]:
    """Rows of the lines that are JSON; what is wrong with the others is added to `broken`."""
    count = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = Row(count, f"line {number}", parse_json(line, number))
        except ValueError as error:
            message = str(error)
            broken.append(message if message.startswith("line ") else f"line {number}: {message}")
            continue
        count += 1
        yield row


def read_object(path: Path, wanted: str) -> dict[str, object]:
    """The object in a whole JSON file; `DataError` for anything else."""
    text = read_text(path, wanted)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: the top level is {kind_of(value)}; a {wanted} was wanted.")
    return value


def field_of(row: Row, key: str, problems: Problems) -> object:
    """A text field of a row (question_id may be a whole number); problems are collected.

    The row must be an object that has the key. None for what is wrong.
    """
    value = row.value
    if not isinstance(value, dict):
        problems.add(row.place, f"found {kind_of(value)}; an object was wanted")
        return None
    if key not in value:
        problems.add(f"{row.place}, {key}", missing_key(value, key, ()))
        return None
    found = value[key]
    if not isinstance(found, str) and not (key == "question_id" and type(found) is int):
        problems.add(f"{row.place}, {key}", f"found {kind_of(found)} ({shorten(found)}); a text was wanted")
        return None
    return found


def text_problem(value: str) -> str | None:
    """What keeps a text from being tokenised: half a surrogate pair cannot be written as UTF-8."""
    if value.isascii():
        return None
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"half of a character ({value[error.start]!a}) at position {error.start}; write it whole"
    return None


def folder_problem(folder: Path) -> str:
    """Why a path is no folder."""
    try:
        folder.stat()
    except FileNotFoundError:
        return f"does not exist{suggestion(folder)}"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    return "is a file"


class PictureFolder:
    """Finds the pictures that rows name and keeps them inside one folder, links included."""

    def __init__(self, folder: str | Path | None, *, flag: str = "--image_folder") -> None:
        """`UsageError` if the folder is not there; None means that no row may name a picture.

        `flag` is how a command line names the folder, for messages.
        """
        self.flag = flag
        self.folder = None if folder in (None, "") else Path(str(folder))
        if self.folder is not None and not os.path.isdir(self.folder):
            problem = folder_problem(self.folder)
            raise UsageError(f"{flag} {self.folder} {problem}; name the folder of the pictures.")
        self.root = None if self.folder is None else self.folder.resolve()
        self.find = cache(lambda name: self._find_plain(name) or self._find(name))
        self.has_no_link = cache(lambda folder: os.path.realpath(folder) == folder)
        self.resolve_folder = cache(lambda folder: Path(os.path.realpath(folder)))
        self.names = cache(lambda folder: tuple(os.listdir(folder)))
        self.suggestions_left = SHOWN_PROBLEMS

    def _find_plain(self, name: str) -> tuple[str, None] | None:
        """What `_find` gives for a plain name without links on its way, quickly; None to look carefully."""
        if self.root is None or os.sep != "/" or not PLAIN_NAME.fullmatch(name):
            return None
        path = f"{self.root}/{name}"
        if not self.has_no_link(path[: path.rindex("/")]):
            return None
        try:
            return (path, None) if stat.S_ISREG(os.lstat(path).st_mode) else None
        except OSError:
            return None

    def _find(self, name: str) -> tuple[str | None, str | None]:
        """The absolute path of a picture, or what is wrong with its name."""
        problem = name_problem(name)
        if problem:
            return None, problem
        if self.root is None:
            return None, f"found {name!r}, but no folder of pictures; name it with {self.flag}"
        path = self.root / name
        parent = self.resolve_folder(path.parent)
        path = parent / path.name
        try:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) or path.name == "..":
                path = path.resolve(strict=True)
                mode = path.stat().st_mode
        except FileNotFoundError:
            return None, self._outside(
                path, name
            ) or f"{name!r} is not in {self.folder}{self._near(parent, path.name)}"
        except (OSError, RuntimeError) as error:
            return None, f"{name!r} cannot be read ({error}); check the file"
        problem = self._outside(path, name)
        if problem is None and not stat.S_ISREG(mode):
            problem = f"{name!r} is no regular file; name a picture file"
        return (None, problem) if problem else (str(path), None)

    def _outside(self, path: Path, name: str) -> str | None:
        assert self.root is not None
        if path.is_relative_to(self.root):
            return None
        return f"{name!r} leads out of {self.folder}; put the picture (not a link to it) into the folder"

    def _near(self, parent: Path, name: str) -> str:
        """A suggestion for a missing picture; only the problems that are shown get one."""
        if self.suggestions_left <= 0:
            return "; add the picture or correct the name"
        self.suggestions_left -= 1
        try:
            near = near_name(name.replace("\\", "/").split("/")[-1], self.names(parent))
        except OSError:
            return f"; the folder {parent.name!r} does not exist there"
        return f"; did you mean {near!r}?" if near else "; add the picture or correct the name"


def name_problem(name: str) -> str | None:
    """What is wrong with a picture's name before the disk is looked at."""
    if not name.strip():
        return "an empty name; name a picture, or leave the field out for a row without one"
    if "\0" in name:
        return f"{shorten(name)} holds a NUL byte; correct the name"
    if text_problem(name):
        return f"{name!a} holds {text_problem(name)}"
    if re.match(r"(?i)(https?|ftp|file|data|s3|gs):", name):
        return f"{shorten(name)} is a URL; nothing is downloaded, put the picture into the folder and name it"
    if re.match(r"[/\\]|[A-Za-z]:", name):
        return f"{shorten(name)} is an absolute path; name the file relative to the image folder"
    return None


def image_names(value: object) -> tuple[list[str], str | None]:
    """The `image` field (a name or a list of names) as a list, or what is wrong with it."""
    names = value if isinstance(value, list) else [value]
    if not names:
        return [], "an empty list; name a picture, or leave the field out for a row without one"
    texts = [entry for entry in names if isinstance(entry, str)]
    if len(texts) < len(names):
        wrong = next(entry for entry in names if not isinstance(entry, str))
        return [], f"found {kind_of(wrong)} ({shorten(wrong)}); a file name was wanted"
    return texts, None


def missing_key(row: dict[str, object], key: str, lookalikes: Sequence[str]) -> str:
    """`is missing`, with the key that was probably meant."""
    near = next((name for name in lookalikes if name in row), None) or near_name(key, row)
    return f"is missing; rename {near!r} to {key!r}" if near and near != key else "is missing; add it"
