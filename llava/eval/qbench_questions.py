"""Q-Bench's question file (LLVisionQA), and the questions that are asked about its pictures.

[{"img_path": "00218.jpg", "question": "Is it sharp?", "candidates": ["Yes", "No"], "correct_ans": "No", ...}]

A question has no id: it is called by its picture, and from the second about one picture on `PICTURE#2` and so
forth. Splits without answers have no `correct_ans`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.metrics.options import lettered_options, plain
from llava.eval.metrics.qbench import CONCERNS, TYPES, Item
from llava.eval.mmbench_questions import LETTER_INSTRUCTIONS
from llava.eval.questions import LostPictures, Question, RowChecks
from llava.records import PictureFolder, Problems, Row, kind_of, missing_key, read_rows, shorten

WANTED = 'question file (a JSON array of rows with "img_path", "question" and "candidates")'
CHOOSE = {"en": "Choose between one of the options as follows:", "zh": "在下列选项中选择一个:"}
"""What stands between the question and its options, by `--lang`."""
INSTRUCTIONS = {"en": LETTER_INSTRUCTIONS["en"], "zh": LETTER_INSTRUCTIONS["cn"]}
"""What `--single-pred-prompt` puts behind them."""
MOST_OPTIONS = 26


@dataclass
class ItemReader:
    """Turns rows into items; what is wrong goes to the problems of `checks`."""

    checks: RowChecks
    asked: Counter[str] = field(default_factory=Counter)

    def read(self, row: Row) -> Item | None:
        """The item, or None when the row has a problem."""
        problems, value = self.checks.problems, row.value
        known = len(problems.messages)
        if not isinstance(value, dict):
            problems.add(row.place, f"found {kind_of(value)}; an object was wanted")
            return None
        image, question = self._text(value, "img_path", row.place), self._text(value, "question", row.place)
        options = self._options(value, row.place)
        right = self._right(value, options, row.place)
        if len(problems.messages) > known:
            return None
        self.asked[image] += 1
        name = image if self.asked[image] == 1 else f"{image}#{self.asked[image]}"
        kinds = kind_named(value.get("type"), TYPES), kind_named(value.get("concern"), CONCERNS)
        return Item(name, image, question, options, right, *kinds)

    def _text(self, row: dict[str, object], key: str, place: str) -> str:
        """A text that is not empty, without the mark of a picture; "" after a problem."""
        place = f"{place}, {key}"
        if key not in row:
            others = {"img_path": ("image", "img", "img_name"), "question": ("text", "prompt")}
            self.checks.problems.add(place, missing_key(row, key, others.get(key, ())))
            return ""
        value = row[key]
        if not self.checks.text(value, place):
            return ""
        if DEFAULT_IMAGE_TOKEN in str(value):
            self.checks.problems.add(place, "found <image>; remove it, the picture comes first anyway")
        return str(value)

    def _options(self, row: dict[str, object], place: str) -> tuple[str, ...]:
        """The candidates as texts."""
        place = f"{place}, candidates"
        if "candidates" not in row:
            self.checks.problems.add(place, missing_key(row, "candidates", ("options", "choices")))
            return ()
        values = row["candidates"]
        if not isinstance(values, list) or not 2 <= len(values) <= MOST_OPTIONS:
            found = f"{len(values)} options" if isinstance(values, list) else kind_of(values)
            self.checks.problems.add(
                place, f"found {found}; an array of 2 to {MOST_OPTIONS} options was wanted"
            )
            return ()
        texts = [text for number, text in enumerate(values) if self.checks.text(text, f"{place}[{number}]")]
        return tuple(texts) if len(texts) == len(values) else ()

    def _right(self, row: Mapping[str, object], options: tuple[str, ...], place: str) -> str | None:
        """The letter of the right option; None in a row without one."""
        right = row.get("correct_ans")
        if right in (None, "") or not options:
            return None
        letters = {
            letter for letter, text in lettered_options(options).items() if plain(text) == plain(str(right))
        }
        if len(letters) != 1:
            found = f"found {shorten(right)}; one of {', '.join(map(shorten, options))} was wanted"
            self.checks.problems.add(f"{place}, correct_ans", found)
            return None
        return letters.pop()


def kind_named(value: object, names: Mapping[int, str]) -> str | None:
    """How a kind of question is called; texts and unknown numbers stay as they are."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return names.get(int(value), str(value)) if str(value).isdecimal() else str(value)


def read_items(question_file: str | Path) -> list[Item]:
    """All items in the order of the file. `DataError` lists every problem with row, field and remedy."""
    path = Path(question_file)
    return items_of(read_rows(path, WANTED), RowChecks(Problems(path)))


def items_of(rows: list[Row], checks: RowChecks) -> list[Item]:
    """The same of rows."""
    reader = ItemReader(checks)
    items = [reader.read(row) for row in rows]
    checks.problems.raise_any()
    return [item for item in items if item is not None]


def prompt_of(item: Item, lang: str, *, ask_for_letter: bool = False) -> str:
    """What the model is asked; the benchmark ends every line, that of the last option too."""
    lines = [item.question, CHOOSE[lang]]
    lines += [f"{letter}. {option}" for letter, option in lettered_options(item.options).items()]
    return "\n".join([*lines, INSTRUCTIONS[lang] if ask_for_letter else ""])


def read_qbench_questions(
    question_file: str | Path,
    image_folder: str | Path | None,
    *,
    lang: str,
    ask_for_letter: bool = False,
    lost_allowed: bool = False,
) -> list[Question]:
    """The questions to ask, in the order of the file.

    `DataError` lists every problem with row, field and remedy; `UsageError` without the image folder. With
    `lost_allowed` some pictures may be missing, which is told on the log.
    """
    path = Path(question_file)
    checks = RowChecks(Problems(path), lost=LostPictures(lost_allowed))
    pictures = PictureFolder(image_folder, flag="--image-folder")
    questions = []
    for number, item in enumerate(items_of(read_rows(path, WANTED), checks)):
        image_path = checks.image_path(item.image, f"row {number}", pictures)
        text = prompt_of(item, lang, ask_for_letter=ask_for_letter)
        questions.append(Question(item.question_id, text, item.image, image_path, None))
    checks.lost.settle(checks.problems)
    return questions
