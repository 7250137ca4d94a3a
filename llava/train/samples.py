"""The user's conversation file, free of torch: all problems are told before the first step.

A row, whose `id` and `image` may be missing:

    {"id": "1", "image": "name.png", "conversations": [{"from": "human", "value": "<image>\\nWho is this?"},
                                                       {"from": "gpt", "value": "Mira"}]}
"""

import logging
from collections.abc import Callable, Sequence
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
    shorten,
    text_problem,
)
from llava.train.index_file import Source, cached_index, digest_of_code
from llava.train.row_stream import stream_rows
from llava.train.sample_index import ROLES, IndexWriter, Sample, SampleIndex, index_in_memory

__all__ = ["DataError", "Sample", "check_pictures", "read_samples"]

logger = logging.getLogger(__name__)

WANTED = "conversation file (a JSON array of samples)"
OTHER_ROLES = {
    "user": "human",
    "assistant": "gpt",
    "model": "gpt",
    "bot": "gpt",
    "chatgpt": "gpt",
    "question": "human",
}
KEPT_FROM_BYTES = 16 << 20
"""Smaller data files are read anew at each start, which takes a second or two; nothing is kept of them."""
CODE = ("records.py", "train/row_stream.py", "train/sample_index.py", "train/samples.py")
"""What an index depends on."""
FULL_CHECK_LIMIT = 20_000
MOST_THREADS = 8
PICTURES_AT_ONCE = 4096
"""Pictures that wait for a thread; the list of a whole large data set would itself be large."""
PLAIN_IDS = (str, int, type(None))


@dataclass
class RowReader:
    """Turns rows into samples; what is wrong goes to `problems`."""

    pictures: PictureFolder
    problems: Problems
    num_dropped: int = 0

    def read(self, row: Row) -> tuple[Sample, list[str]] | None:
        """The sample and what the row calls its pictures, or None when the row has a problem."""
        return self.read_plain(row) or self.read_carefully(row)

    def read_plain(self, row: Row) -> tuple[Sample, list[str]] | None:
        """The same for the usual row, quickly; None where there is something to tell."""
        value = row.value
        try:
            texts = [turn["value"] for turn in value["conversations"]]  # type: ignore[index]
            roles = [turn["from"] for turn in value["conversations"]]  # type: ignore[index]
            sample_id, image = value.get("id"), value.get("image")  # type: ignore[union-attr]
            "".join(texts).encode()
        except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
            return None
        if roles != [*ROLES] * (len(texts) // 2) or not "".join(texts[1::2]).strip():
            return None
        if DEFAULT_IMAGE_TOKEN in "".join(texts[1::2]) or type(sample_id) not in PLAIN_IDS:
            return None
        names = [image] if isinstance(image, str) else [] if image is None else image
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        paths = [self.pictures.find(name)[0] for name in names]
        num_marked = sum([DEFAULT_IMAGE_TOKEN in text for text in texts[::2]])
        if None in paths or num_marked != len(paths) or (image is not None and not paths):
            return None
        images = tuple(path for path in paths if path is not None)
        known_as = str(row.number if sample_id is None else sample_id)
        return Sample(known_as, row.number, images, tuple(zip(roles, texts, strict=True))), names

    def read_carefully(self, row: Row) -> tuple[Sample, list[str]] | None:
        """The same for any row; what is wrong is told."""
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
        names = image_names(row.value["image"])[0] if images else []
        return Sample(str(sample_id), row.number, tuple(images), tuple(turns)), names

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


def read_samples(data_path: str | Path, image_folder: str | Path | None) -> SampleIndex:
    """All samples of a conversation file (JSON array or JSON lines), in its order.

    They are read one by one into an index; that of a large file is kept and taken up by the next start and by
    other ranks, if the file has the same content and its pictures are where they were.

    `DataError` lists every problem with row, id, field and remedy; `UsageError` without the image folder.
    """
    path = Path(data_path)
    pictures = PictureFolder(image_folder)

    def fill(writer: IndexWriter) -> dict[str, object]:
        return write_samples(path, pictures, writer)

    if path.is_file() and path.stat().st_size >= KEPT_FROM_BYTES:
        source = Source(path, pictures.root, digest_of_code(*CODE))
        index = cached_index(source, fill, is_current=pictures_are_there(pictures))
    else:
        index = index_in_memory(fill)
    if index.facts["num_dropped"]:
        found = "%s: the first turn of %d rows is from gpt and is dropped."
        logger.warning(found, path, index.facts["num_dropped"])
    return index


def write_samples(path: Path, pictures: PictureFolder, writer: IndexWriter) -> dict[str, object]:
    """Check all rows of a file and write them; raises as `read_samples` does."""
    reader = RowReader(pictures, Problems(path))
    for row in stream_rows(path, WANTED):
        found = reader.read(row)
        if found is not None:
            writer.add(*found)
    reader.problems.raise_any()
    return {"num_dropped": reader.num_dropped}


def pictures_are_there(pictures: PictureFolder) -> Callable[[SampleIndex], bool]:
    """Whether all names of an index lead to the pictures that they led to when it was written."""
    return lambda index: all(pictures.find(name) == (path, None) for name, path in index.named_pictures())


def check_pictures(samples: Sequence[Sample], mode: str = "auto") -> None:
    """Open every distinct picture once, in threads; `UsageError` lists the unreadable ones, each with a row.

    `mode`: `full` decodes, `header` reads type and size, `none` does nothing; `auto` decides by their number.
    """
    index = SampleIndex.of(samples)
    rows = index.picture_rows.tolist()
    if mode == "auto":
        mode = "full" if len(rows) <= FULL_CHECK_LIMIT else "header"
    if mode == "none":
        return
    problem_of = decoding_problem if mode == "full" else header_problem
    problems = Problems(Path("pictures"))
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        for start in range(0, len(rows), PICTURES_AT_ONCE):
            numbers = range(start, min(start + PICTURES_AT_ONCE, len(rows)))
            found = pool.map(problem_of, [index.picture_path(number) for number in numbers])
            for number, problem in zip(numbers, found, strict=True):
                if problem:
                    sample = samples[rows[number]]
                    problems.add(f"row {sample.row} (id {shorten(sample.sample_id)}), image", problem)
    problems.raise_any()


def decoding_problem(path: str) -> str | None:
    """Why a picture cannot be used, told by what training itself opens it with."""
    from llava.images import load_image

    try:
        load_image(path)
    except UsageError as error:
        return str(error)
    return None


def header_problem(path: str) -> str | None:
    """Why a picture cannot be opened, without decoding it."""
    from llava.images import image_size

    try:
        image_size(path)
    except UsageError as error:
        return f"{str(error).removesuffix('.')}; or remove the row"
    return None
