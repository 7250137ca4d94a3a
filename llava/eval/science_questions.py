"""ScienceQA's question file: conversations of LLaVA's training format, of which the first turn is asked.

[{"id": "3", "image": "3/image.png", "conversations": [{"from": "human", "value": "...\\n<image>"}, ...]}]
"""

from dataclasses import dataclass
from pathlib import Path

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.questions import LETTER_INSTRUCTION, LostPictures, Question, RowChecks
from llava.records import PictureFolder, Problems, Row, kind_of, missing_key, read_rows, shorten

WANTED = 'question file (a JSON array of rows with "id" and "conversations")'


@dataclass
class ScienceReader:
    """Turns rows into questions; what is wrong goes to the problems of `checks`."""

    pictures: PictureFolder
    checks: RowChecks
    ask_for_letter: bool

    def read(self, row: Row) -> Question | None:
        """The question, or None when the row has a problem."""
        problems = self.checks.problems
        known = self.checks.num_fatal()
        value = row.value
        if not isinstance(value, dict):
            problems.add(row.place, f"found {kind_of(value)}; an object was wanted")
            return None
        place = row.place + (f" (id {shorten(value['id'])})" if "id" in value else "")
        self.checks.question_id(value, place, key="id", others=("question_id", "qid"))
        text = self._first_text(value, place)
        image_path = self.checks.image_path(value.get("image"), place, self.pictures)
        if self.checks.num_fatal() > known:
            return None
        if self.ask_for_letter:
            text = f"{text}\n{LETTER_INSTRUCTION}"
        image = value.get("image")
        prompt = text if image is None else f"{DEFAULT_IMAGE_TOKEN}\n{text}"
        question = Question(value["id"], text, image, image_path, None, prompt)
        return question if self.checks.only_once(question, row.place, f"{place}, id") else None

    def _first_text(self, row: dict[str, object], place: str) -> str:
        """The first turn's text without <image>; an empty one after a problem."""
        problems = self.checks.problems
        if "conversations" not in row:
            problems.add(f"{place}, conversations", missing_key(row, "conversations", ("conversation",)))
            return ""
        turns = row["conversations"]
        if not isinstance(turns, list) or not turns:
            found = "an empty array" if turns == [] else kind_of(turns)
            problems.add(f"{place}, conversations", f"found {found}; an array of turns was wanted")
            return ""
        place += ", conversations[0]"
        turn = turns[0]
        if not isinstance(turn, dict):
            problems.add(place, f"found {kind_of(turn)}; an object was wanted")
        elif "value" not in turn:
            problems.add(f"{place}, value", missing_key(turn, "value", ("text", "content")))
        elif turn.get("from", "human") != "human":
            problems.add(f"{place}, from", f"found {shorten(turn['from'])}; the question is from 'human'")
        else:
            text = turn["value"]
            text = text.replace(DEFAULT_IMAGE_TOKEN, "").strip() if isinstance(text, str) else text
            return text if self.checks.text(text, f"{place}, value") else ""
        return ""


def read_science_questions(
    question_file: str | Path,
    image_folder: str | Path | None,
    *,
    ask_for_letter: bool,
    lost_allowed: bool = False,
) -> list[Question]:
    """All questions in the order of the file; with `ask_for_letter` each ends with that instruction.

    `DataError` lists every problem with row, id, field and remedy; `UsageError` without the image folder.
    With `lost_allowed` some pictures may be missing, which is told on the log.
    """
    path = Path(question_file)
    checks = RowChecks(Problems(path), lost=LostPictures(lost_allowed))
    reader = ScienceReader(PictureFolder(image_folder, flag="--image-folder"), checks, ask_for_letter)
    questions = [reader.read(row) for row in read_rows(path, WANTED)]
    checks.lost.settle(checks.problems)
    return [question for question in questions if question is not None]
