"""The user's question file, free of torch: all rows are checked before a model is loaded.

A line, whose `image` and `category` may be missing: {"question_id": 1, "image": "a.png", "text": "...", ...}
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.records import (
    DataError,
    PictureFolder,
    Problems,
    Row,
    kind_of,
    missing_key,
    name_problem,
    read_rows,
    shorten,
    text_problem,
)

logger = logging.getLogger(__name__)

WANTED = 'question file (JSON lines with "question_id" and "text")'
LETTER_INSTRUCTION = "Answer with the option's letter from the given choices directly."
"""What `--single-pred-prompt` puts behind a question."""


@dataclass(frozen=True)
class Round:
    """One showing of a question with options: its number from 0, the options in the order shown, and the
    letters that they had at first.
    """

    round_id: int
    options: tuple[str, ...]
    option_char: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """One question; `image` as the file has it, `image_path` absolute, both None without a picture.

    `text` is what the model is asked, without a mark for the picture; `prompt` what the answers file says
    instead of it, `round` is there where options are turned round.
    """

    question_id: int | str
    text: str
    image: str | None
    image_path: str | None
    category: str | None
    prompt: str | None = None
    round: Round | None = None

    @property
    def shown_prompt(self) -> str:
        """The prompt of the answers file."""
        return self.text if self.prompt is None else self.prompt


@dataclass
class LostPictures:
    """Counts questions with a picture, and those whose picture is missing (each is also a problem).

    `allowed`: the others may be answered all the same.
    """

    allowed: bool = False
    num_pictures: int = 0
    num_lost: int = 0

    def settle(self, problems: Problems) -> None:
        """Raise the problems of a file; those of missing pictures are only told on the log when they are
        allowed, there are no others, and at most half of the pictures are missing.
        """
        few = 2 * self.num_lost <= self.num_pictures
        only = self.num_lost == len(problems.messages)
        try:
            problems.raise_any()
        except DataError as error:
            if not (self.allowed and few and only):
                raise
            logger.warning("%s\nThe others are answered; --strict stops here instead.", error)


def place_of_missing(name: str, pictures: PictureFolder) -> str | None:
    """Where a picture should lie that is not there; None when it is, or its name is none of the folder."""
    if pictures.root is None or name_problem(name):
        return None
    path = Path(os.path.realpath(pictures.root / name))
    try:
        return str(path) if path.is_relative_to(pictures.root) and not path.exists() else None
    except OSError:  # a name that no file can have
        return None


@dataclass
class RowChecks:
    """Checks that the readers of question files share; what is wrong goes to `problems`."""

    problems: Problems
    places: dict[tuple[str, str, str | None], str] = field(default_factory=dict)
    lost: LostPictures = field(default_factory=LostPictures)

    def num_fatal(self) -> int:
        """Problems that leave no question to ask."""
        return len(self.problems.messages) - self.lost.num_lost

    def question_id(self, row: dict[str, object], place: str, *, key: str, others: tuple[str, ...]) -> None:
        """A whole number or a text under `key`; `others` are names that it may have got by mistake."""
        place = f"{place}, {key}"
        if key not in row:
            self.problems.add(place, missing_key(row, key, others))
            return
        value = row[key]
        if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
            found = "an empty text" if isinstance(value, str) else kind_of(value)
            self.problems.add(place, f"found {found}; a whole number or a text was wanted")

    def text(self, text: object, place: str) -> bool:
        """Whether it is a text that is not empty and can be tokenised."""
        if not isinstance(text, str):
            self.problems.add(place, f"found {kind_of(text)} ({shorten(text)}); a text was wanted")
        elif not text.strip():
            self.problems.add(place, "found an empty text; write the question")
        elif text_problem(text):
            self.problems.add(place, f"found {text_problem(text)}")
        else:
            return True
        return False

    def image_path(self, image: object, place: str, pictures: PictureFolder) -> str | None:
        """The absolute path of the question's picture, None without one."""
        if image is None:
            return None
        if not isinstance(image, str):
            found = f"found {kind_of(image)} ({shorten(image)}); a file name was wanted"
            self.problems.add(f"{place}, image", found)
            return None
        path, problem = pictures.find(image)
        self.lost.num_pictures += 1
        if problem:
            self.problems.add(f"{place}, image", problem)
            path = place_of_missing(image, pictures)
            self.lost.num_lost += path is not None
        return path

    def only_once(self, question: Question, row_place: str, place: str) -> bool:
        """Whether no other row asks the same under the same id. (In MME all questions about a picture share
        its id.)
        """
        key = (str(question.question_id), question.text, question.image_path)
        first = self.places.setdefault(key, row_place)
        if first != row_place:
            found = f"found {shorten(question.question_id)} again, {first} has it too and asks the same"
            self.problems.add(place, f"{found}; ids must differ")
        return first == row_place


@dataclass
class QuestionReader:
    """Turns rows into questions; what is wrong goes to the problems of `checks`."""

    pictures: PictureFolder
    checks: RowChecks

    def read(self, row: Row) -> Question | None:
        """The question, or None when the row has a problem."""
        problems = self.checks.problems
        known = self.checks.num_fatal()
        value = row.value
        if not isinstance(value, dict):
            problems.add(row.place, f"found {kind_of(value)}; an object was wanted")
            return None
        place = row.place
        if "question_id" in value:
            place += f" (question_id {shorten(value['question_id'])})"
        self.checks.question_id(value, place, key="question_id", others=("id", "questionId", "qid"))
        self._check_text(value, place)
        category = value.get("category")
        if category is not None and not isinstance(category, str):
            problems.add(f"{place}, category", f"found {kind_of(category)}; a text was wanted")
        image_path = self.checks.image_path(value.get("image"), place, self.pictures)
        if self.checks.num_fatal() > known:
            return None
        question = Question(value["question_id"], value["text"], value.get("image"), image_path, category)
        return question if self.checks.only_once(question, row.place, f"{place}, question_id") else None

    def _check_text(self, row: dict[str, object], place: str) -> None:
        """A text without <image>, which is put in front by the program."""
        place += ", text"
        if "text" not in row:
            self.checks.problems.add(place, missing_key(row, "text", ("question", "prompt", "value")))
        elif self.checks.text(row["text"], place) and DEFAULT_IMAGE_TOKEN in str(row["text"]):
            self.checks.problems.add(place, "found <image>; remove it, the picture comes first anyway")


def read_questions(
    question_file: str | Path, image_folder: str | Path | None, *, lost_allowed: bool = False
) -> list[Question]:
    """All questions in the order of the file; blank lines are skipped, ids are kept as they are.

    `DataError` lists every problem with line, id, field and remedy; `UsageError` without the image folder.
    With `lost_allowed` some pictures may be missing, which is told on the log.
    """
    path = Path(question_file)
    checks = RowChecks(Problems(path), lost=LostPictures(lost_allowed))
    reader = QuestionReader(PictureFolder(image_folder, flag="--image-folder"), checks)
    questions = [reader.read(row) for row in read_rows(path, WANTED)]
    checks.lost.settle(checks.problems)
    return [question for question in questions if question is not None]
