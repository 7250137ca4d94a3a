"""The user's conversation file, free of torch: all problems are told before the first step.

A row, whose `id` and `image` may be missing:

    {"id": "1", "image": "name.png", "conversations": [{"from": "human", "value": "<image>\\nWho is this?"},
                                                       {"from": "gpt", "value": "Mira"}]}
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import UsageError
from llava.records import (
    DataError,
    PictureFolder,
    Problems,
    Row,
    image_names,
    kind_of,
    missing_key,
    read_rows,
    shorten,
    text_problem,
)

__all__ = ["DataError", "Sample", "check_pictures", "read_samples"]

logger = logging.getLogger(__name__)

WANTED = "conversation file (a JSON array of samples)"
ROLES = ("human", "gpt")
OTHER_ROLES = {
    "user": "human",
    "assistant": "gpt",
    "model": "gpt",
    "bot": "gpt",
    "chatgpt": "gpt",
    "question": "human",
}
FULL_CHECK_LIMIT = 20_000
MOST_THREADS = 8
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class Sample:
    """One conversation: its row from 0, absolute paths of pictures, (role, text) turns from human to gpt."""

    sample_id: str
    row: int
    images: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]


@dataclass
class RowReader:
    """Turns rows into samples; what is wrong goes to `problems`."""

    pictures: PictureFolder
    problems: Problems
    num_dropped: int = 0

    def read(self, row: Row) -> Sample | None:
        """The sample, or None when the row has a problem."""
        known = len(self.problems.messages)
        if not isinstance(row.value, dict):
            self.problems.add(
                row.place, f"found {kind_of(row.value)}; an object with 'conversations' was wanted"
            )
            return None
        place = row.place
        sample_id = row.value.get("id")
        if sample_id is None:
            sample_id = row.number
        else:
            place += f" (id {shorten(sample_id)})"
            if isinstance(sample_id, bool) or not isinstance(sample_id, str | int):
                self.problems.add(
                    f"{place}, id", f"found {kind_of(sample_id)}; a text or a whole number was wanted"
                )
        turns = self._turns(row.value, place)
        images = self._images(row.value, place)
        if len(self.problems.messages) > known or turns is None:
            return None
        self._compare(turns, images, row.value, place)
        return Sample(str(sample_id), row.number, tuple(images), tuple(turns))

    def _turns(self, row: dict[str, object], place: str) -> list[tuple[str, str]] | None:
        """The checked turns; a first turn from gpt is dropped, as the original does."""
        place += ", conversations"
        if "conversations" not in row:
            self.problems.add(
                place, missing_key(row, "conversations", ("messages", "conversation", "dialog", "turns"))
            )
            return None
        value = row["conversations"]
        if not isinstance(value, list) or not value:
            found = "an empty array" if value == [] else kind_of(value)
            self.problems.add(place, f"found {found}; an array of turns, human and gpt in turn, was wanted")
            return None
        turns = [self._turn(entry, f"{place}[{index}]") for index, entry in enumerate(value)]
        good = [turn for turn in turns if turn is not None]
        if len(good) < len(turns):
            return None
        offset = 1 if good[0][0] == "gpt" else 0
        self.num_dropped += offset
        self._check_order(good[offset:], place, offset)
        return good[offset:]

    def _turn(self, turn: object, place: str) -> tuple[str, str] | None:
        """(role, text), or None with a problem told."""
        known = len(self.problems.messages)
        if not isinstance(turn, dict):
            self.problems.add(place, f'found {kind_of(turn)}; {{"from": "human", "value": "..."}} was wanted')
            return None
        role, text = turn.get("from"), turn.get("value")
        for key, lookalikes in (("from", ("role", "speaker")), ("value", ("content", "text"))):
            if key not in turn:
                self.problems.add(f"{place}.{key}", missing_key(turn, key, lookalikes))
        if "from" in turn and role not in ROLES:
            self.problems.add(f"{place}.from", role_problem(role))
        if "value" in turn and not isinstance(text, str):
            self.problems.add(f"{place}.value", f"found {kind_of(text)} ({shorten(text)}); a text was wanted")
        elif isinstance(text, str) and text_problem(text):
            self.problems.add(f"{place}.value", f"found {text_problem(text)}")
        return None if len(self.problems.messages) > known else (str(role), str(text))

    def _check_order(self, turns: Sequence[tuple[str, str]], place: str, offset: int) -> None:
        """Human and gpt in turn, an answer at the end, something to learn, and pictures in questions only."""
        for index, (role, text) in enumerate(turns):
            wanted = ROLES[index % 2]
            if role != wanted:
                remedy = "join the two turns or add the one between them"
                self.problems.add(
                    f"{place}[{index + offset}].from", f"found a second {role!r} turn in a row; {remedy}"
                )
                return
            if role == "gpt" and DEFAULT_IMAGE_TOKEN in text:
                self.problems.add(
                    f"{place}[{index + offset}].value",
                    "found <image> in an answer; it belongs into a human turn",
                )
        if len(turns) % 2 or not turns:
            found = "the conversation ends with a human turn" if turns else "there is no turn from human"
            self.problems.add(
                place, f"{found}; a question needs an answer from gpt, add it or remove the turn"
            )
        elif not any(text.strip() for role, text in turns if role == "gpt"):
            self.problems.add(place, "every answer is empty; write the answers or remove the row")

    def _images(self, row: dict[str, object], place: str) -> list[str]:
        """Absolute paths of the row's pictures."""
        if row.get("image") is None:
            return []
        names, problem = image_names(row["image"])
        if problem:
            self.problems.add(f"{place}, image", problem)
        paths = []
        for name in names:
            path, problem = self.pictures.find(name)
            if path is None:
                self.problems.add(f"{place}, image", str(problem))
            else:
                paths.append(path)
        return paths

    def _compare(
        self, turns: Sequence[tuple[str, str]], images: Sequence[str], row: dict[str, object], place: str
    ) -> None:
        """As many turns with <image> as pictures: several <image> in one turn are one, as in the original."""
        num_marked = sum(DEFAULT_IMAGE_TOKEN in text for _, text in turns)
        if num_marked == len(images):
            return
        if not images:
            remedy = missing_key(
                {name: None for name in row if name != "image"}, "image", ("images", "image_path")
            )
            self.problems.add(
                f"{place}, image", f"the text has <image>, but the field {remedy}, or remove <image>"
            )
        elif not num_marked:
            found = "the row has a picture, but no turn has <image>; begin the first question with it"
            self.problems.add(
                f"{place}, conversations",
                f"{found}; begin the first question with <image>, or remove 'image'",
            )
        else:
            found = f"<image> in {num_marked} turn{'s' * (num_marked > 1)}, but {len(images)} in 'image'"
            self.problems.add(f"{place}, conversations", f"{found}; a turn with <image> for each was wanted")


def role_problem(role: object) -> str:
    """What to write instead of a role."""
    found = f"found {shorten(role)}; 'human' or 'gpt' was wanted"
    if not isinstance(role, str):
        return found
    if role.strip().lower() == "system":
        return f"{found}; remove the turn, the system text comes from the template (--version)"
    meant = OTHER_ROLES.get(role.strip().lower(), role.strip().lower())
    return f"{found}; write {meant!r}" if meant in ROLES else found


def read_samples(data_path: str | Path, image_folder: str | Path | None) -> list[Sample]:
    """All samples of a conversation file (JSON array or JSON lines), in its order.

    `DataError` lists every problem with row, id, field and remedy; `UsageError` without the image folder.
    """
    path = Path(data_path)
    reader = RowReader(PictureFolder(image_folder), Problems(path))
    samples = [reader.read(row) for row in read_rows(path, WANTED)]
    reader.problems.raise_any()
    if reader.num_dropped:
        logger.warning("%s: the first turn of %d rows is from gpt and is dropped.", path, reader.num_dropped)
    return [sample for sample in samples if sample is not None]


def check_pictures(samples: Sequence[Sample], mode: str = "auto") -> None:
    """Open every distinct picture once, in threads; `UsageError` lists the unreadable ones, each with a row.

    `mode`: `full` decodes, `header` reads type and size, `none` does nothing; `auto` decides by their number.
    """
    first_use: dict[str, Sample] = {}
    for sample in samples:
        for image in sample.images:
            first_use.setdefault(image, sample)
    if mode == "auto":
        mode = "full" if len(first_use) <= FULL_CHECK_LIMIT else "header"
    if mode == "none" or not first_use:
        return
    problem_of = decoding_problem if mode == "full" else header_problem
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        found = pool.map(problem_of, first_use)
        problems = Problems(Path("pictures"))
        for sample, problem in zip(first_use.values(), found, strict=True):
            if problem:
                problems.add(f"row {sample.row} (id {shorten(sample.sample_id)}), image", problem)
    problems.raise_any()


def decoding_problem(path: str) -> str | None:
    """Why a picture cannot be used, told by what training itself opens it with."""
    from PIL import Image

    from llava.processing import load_image

    try:
        load_image(path)
    except UsageError as error:
        return str(error)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{path}: {error}; replace the picture or remove the row"
    return None


def header_problem(path: str) -> str | None:
    """Why a picture cannot be opened, without decoding it."""
    from PIL import Image

    try:
        with Image.open(path, formats=PICTURE_FORMATS):
            return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{path}: {error}; replace the picture or remove the row"
