"""MMBench's table (tab-separated, with a header) and the questions that are asked about its rows.

    index  question               hint  A    B     C      D      image           ...
    3      What color is this?          red  blue  green  white  <base64 text>   ...

Cells may stand in double quotes and then hold line breaks. An empty cell, `nan` and the like is no hint, and
the first such option ends the options.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from string import ascii_uppercase

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import UsageError
from llava.eval.picture_bytes import decode_base64, size_of
from llava.eval.questions import LETTER_INSTRUCTION, Question, Round, RowChecks
from llava.records import DataError, Problems, read_text

WANTED = 'table (tab-separated, with "index", "question", "image" and options from "A" on)'
REQUIRED = ("index", "question", "image", "A")
MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
     "NA", "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
"""Cells that pandas, which the original reads the table with, takes for a missing value."""
LETTER_INSTRUCTIONS = {"en": LETTER_INSTRUCTION, "cn": "请直接回答选项字母。"}
"""What `--single-pred-prompt` puts behind a question, by `--lang`."""
LARGEST_CELL = 2**31 - 1


@dataclass(frozen=True)
class Item:
    """A row of the table: `question` with its hint before it, `image` in base64, `place` for messages."""

    index: int | str
    question: str
    options: tuple[str, ...]
    image: str
    place: str


def is_nothing(cell: str) -> bool:
    """Whether a cell says that nothing is there."""
    text = cell.strip()
    return text in MISSING or text.lower() in ("nan", "none")


def read_items(question_file: str | Path) -> list[Item]:
    """All rows in the order of the table; pictures are looked at, not decoded. Indices are numbers if all
    are.

    `DataError` lists every problem with line, index, column and remedy.
    """
    path = Path(question_file)
    rows = read_table(path)
    problems = Problems(path)
    as_numbers = all(re.fullmatch(r"[+-]?\d+", row["index"].strip()) for _, row in rows)
    reader = ItemReader(RowChecks(problems), as_numbers)
    items = [reader.read(place, row) for place, row in rows]
    problems.raise_any()
    return [item for item in items if item is not None]


def read_table(path: Path) -> list[tuple[str, dict[str, str]]]:
    """(place for messages, cells by column) of every row; cells that nobody needs may lack at its end."""
    (_, header), *lines = cells_of(path, read_text(path, WANTED))
    columns = [name.strip() for name in header]
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        found = f"no column {', '.join(missing)}; the header has {', '.join(columns)[:200]}"
        raise DataError(f"{path}: {found}; a {WANTED} was wanted.")
    twice = {name for name in columns if name and columns.count(name) > 1}
    if twice:
        raise DataError(f"{path}: the header has {', '.join(sorted(twice))} twice; rename or remove one.")
    problems, rows = Problems(path), []
    fewest = 1 + max(columns.index(name) for name in REQUIRED)
    for number, cells in lines:
        place = f"line {number}"
        if len(cells) < fewest:
            problems.add(
                place,
                f"found {len(cells)} cells; {fewest} or more were wanted (is a double quote left open?)",
            )
        if len(cells) > len(columns):
            found = f"found {len(cells)} cells for {len(columns)} columns"
            problems.add(place, f"{found}; put a cell that holds a tab into double quotes")
        cells += [""] * (len(columns) - len(cells))
        rows.append((place, dict(zip(columns, cells, strict=False))))
    problems.raise_any()
    if not rows:
        raise DataError(f"{path} holds no rows below its header; a {WANTED} was wanted.")
    return rows


def cells_of(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """(line where it begins, cells) of every row that is not blank, the header first."""
    # not io.StringIO, which takes four bytes for a letter of a large table
    reader = csv.reader((f"{line}\n" for line in text.split("\n")), delimiter="\t")
    lines, start = [], 1
    limit = csv.field_size_limit(LARGEST_CELL)  # pictures are longer than the module's usual limit
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        found = f"{path} line {reader.line_num}: {error}"
        raise DataError(f"{found}; put a cell that holds line breaks into double quotes.") from None
    finally:
        csv.field_size_limit(limit)
    return lines


@dataclass
class ItemReader:
    """Turns rows into items; what is wrong goes to the problems of `checks`."""

    checks: RowChecks
    as_numbers: bool

    def read(self, place: str, row: dict[str, str]) -> Item | None:
        """The item, or None when the row has a problem."""
        problems = self.checks.problems
        known = len(problems.messages)
        index = row["index"].strip()
        row_place = place
        if is_nothing(index):
            problems.add(f"{place}, index", "is empty; number the rows")
        else:
            place += f" (index {index})"
        question = row["question"]
        if is_nothing(question):
            problems.add(f"{place}, question", "is empty; write the question")
        if not is_nothing(row.get("hint", "")):
            question = f"{row['hint']}\n{question}"
        letters = takewhile(row.__contains__, ascii_uppercase)
        options = tuple(takewhile(lambda cell: not is_nothing(cell), (row[letter] for letter in letters)))
        if any(DEFAULT_IMAGE_TOKEN in text for text in (question, *options)):
            problems.add(f"{place}, question", "found <image>; remove it, the picture comes first anyway")
        self._check_image(row["image"], place)
        if len(problems.messages) > known:
            return None
        number = int(index) if self.as_numbers else index
        asked = Question(number, lettered(question, options), None, None, None)
        if not self.checks.only_once(asked, row_place, f"{place}, index"):
            return None
        return Item(number, question, options, row["image"], place)

    def _check_image(self, image: str, place: str) -> None:
        """Base64 text of something that begins as a picture."""
        place = f"{place}, image"
        if is_nothing(image):
            found = "is empty; write the picture file's bytes as base64 text (is a double quote left open?)"
            self.checks.problems.add(place, found)
            return
        try:
            size_of(decode_base64(image), "it")
        except UsageError as error:
            self.checks.problems.add(place, str(error).removesuffix("."))
        except ValueError as error:
            self.checks.problems.add(place, f"{error}; write the picture file's bytes as base64 text")


def lettered(question: str, options: Sequence[str]) -> str:
    """The question with one line per option: `A. red`."""
    letters = zip(ascii_uppercase, options, strict=False)
    return "\n".join([question, *(f"{letter}. {option}" for letter, option in letters)])


def questions_of(item: Item, *, all_rounds: bool, instruction: str | None) -> list[Question]:
    """The item's rounds: the options as they stand and, with `all_rounds`, turned round by one each time.

    A round is a question of its own. Its prompt leaves out the instruction, as in the original; `image_path`
    is the item's place, so that its rounds share the picture.
    """
    letters = tuple(ascii_uppercase[: len(item.options)])
    questions = []
    for turn in range(max(len(letters), 1) if all_rounds else 1):
        options = item.options[turn:] + item.options[:turn]
        prompt = lettered(item.question, options)
        text = prompt if instruction is None else f"{prompt}\n{instruction}"
        shown = Round(turn, options, letters[turn:] + letters[:turn])
        questions.append(Question(item.index, text, None, item.place, None, prompt, shown))
    return questions
