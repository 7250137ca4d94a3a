"""The user's question file, free of torch: all rows are checked before a model is loaded.

A line, whose `image` and `category` may be missing: {"question_id": 1, "image": "a.png", "text": "...", ...}
"""

from dataclasses import dataclass
from pathlib import Path

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.records import PictureFolder, Problems, Row, kind_of, missing_key, read_rows, shorten, text_problem

WANTED = 'question file (JSON lines with "question_id" and "text")'


@dataclass(frozen=True)
class Question:
    """One question; `image` as the file has it, `image_path` absolute, both None without a picture."""

    question_id: int | str
    text: str
    image: str | None
    image_path: str | None
    category: str | None


@dataclass
class QuestionReader:
    """Turns rows into questions; what is wrong goes to `problems`."""

    pictures: PictureFolder
    problems: Problems
    places: dict[str, str]

    def read(self, row: Row) -> Question | None:
        """The question, or None when the row has a problem."""
        known = len(self.problems.messages)
        value = row.value
        if not isinstance(value, dict):
            self.problems.add(row.place, f"found {kind_of(value)}; an object was wanted")
            return None
        place = row.place
        if "question_id" in value:
            place += f" (question_id {shorten(value['question_id'])})"
        self._check_id(value, place)
        self._check_text(value, place)
        category = value.get("category")
        if category is not None and not isinstance(category, str):
            self.problems.add(f"{place}, category", f"found {kind_of(category)}; a text was wanted")
        image_path = self._image_path(value, place)
        if len(self.problems.messages) > known:
            return None
        return Question(value["question_id"], value["text"], value.get("image"), image_path, category)

    def _check_id(self, row: dict[str, object], place: str) -> None:
        """A whole number or a text that no other question has."""
        place_of_id = f"{place}, question_id"
        if "question_id" not in row:
            self.problems.add(place_of_id, missing_key(row, "question_id", ("id", "questionId", "qid")))
            return
        value = row["question_id"]
        if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
            found = "an empty text" if isinstance(value, str) else kind_of(value)
            self.problems.add(place_of_id, f"found {found}; a whole number or a text was wanted")
            return
        first = self.places.setdefault(str(value), place.split(" (")[0])
        if first != place.split(" (")[0]:
            self.problems.add(
                place_of_id, f"found {shorten(value)} again, {first} has it too; ids must differ"
            )

    def _check_text(self, row: dict[str, object], place: str) -> None:
        """A text that is not empty and has no <image>, which is put in front by the program."""
        place += ", text"
        if "text" not in row:
            self.problems.add(place, missing_key(row, "text", ("question", "prompt", "value")))
            return
        text = row["text"]
        if not isinstance(text, str):
            self.problems.add(place, f"found {kind_of(text)} ({shorten(text)}); a text was wanted")
        elif not text.strip():
            self.problems.add(place, "found an empty text; write the question")
        elif text_problem(text):
            self.problems.add(place, f"found {text_problem(text)}")
        elif DEFAULT_IMAGE_TOKEN in text:
            self.problems.add(place, "found <image>; remove it, the picture comes first anyway")

    def _image_path(self, row: dict[str, object], place: str) -> str | None:
        """The absolute path of the question's picture, None without one."""
        image = row.get("image")
        if image is None:
            return None
        if not isinstance(image, str):
            self.problems.add(
                f"{place}, image", f"found {kind_of(image)} ({shorten(image)}); a file name was wanted"
            )
            return None
        path, problem = self.pictures.find(image)
        if problem:
            self.problems.add(f"{place}, image", problem)
        return path


def read_questions(question_file: str | Path, image_folder: str | Path | None) -> list[Question]:
    """All questions in the order of the file; blank lines are skipped, ids are kept as they are.

    `DataError` lists every problem with line, id, field and remedy; `UsageError` without the image folder.
    """
    path = Path(question_file)
    reader = QuestionReader(PictureFolder(image_folder), Problems(path), {})
    questions = [reader.read(row) for row in read_rows(path, WANTED)]
    reader.problems.raise_any()
    return [question for question in questions if question is not None]
