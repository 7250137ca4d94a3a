"""Samples as arrays: all texts in one run of bytes, with the numbers that the start of a training needs.

The bytes are the same in memory and in a file (`llava.train.index_file`), which is mapped, so that loader
processes and ranks share its pages. Layout: the texts of all turns; arrays at multiples of 8 bytes; a JSON
footer that says where they are; its length in 8 bytes.
"""

import io
import json
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice, pairwise
from typing import BinaryIO, overload

import numpy as np

from llava.constants import DEFAULT_IMAGE_TOKEN

FORMAT = 1
LENGTH_BYTES = 8
ANY_ID = "surrogatepass"
"""Ids are never tokenised, so half a character may stand in them."""
ROLES = ("human", "gpt")


@dataclass(frozen=True)
class Sample:
    """One conversation: its row from 0, absolute paths of pictures, (role, text) turns from human to gpt."""

    sample_id: str
    row: int
    images: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]


def num_words(texts: Sequence[str]) -> int:
    """Words of a conversation, separated by blanks."""
    return sum(len(text.split()) for text in texts)


@dataclass
class Texts:
    """Many texts one after the other, and where each of them ends."""

    content: bytearray = field(default_factory=bytearray)
    ends: array = field(default_factory=lambda: array("q", [0]))

    def add(self, text: bytes) -> None:
        """One more text."""
        self.content += text
        self.ends.append(len(self.content))


class IndexWriter:
    """Writes samples to a file of the layout above, turn by turn, and keeps only numbers in memory.

    `names`, for the samples' pictures, are what the data file calls them: the next start looks again whether
    they lead to the same files.
    """

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.size = 0
        self.ids, self.paths, self.names = Texts(), Texts(), Texts()
        self.numbers = {
            "turn_ends": array("q", [0]),
            "row_turns": array("q", [0]),
            "row_pictures": array("q", [0]),
            "pictures": array("i"),
            "picture_rows": array("q"),
            "name_pictures": array("i"),
            "groups": array("i"),
            "words": array("q"),
            "first_answers": array("i"),
            "last_picture_turns": array("i"),
        }
        self.picture_of: dict[str, int] = {}
        self.known_names: set[str] = set()
        self.group_of: dict[tuple[int, ...], int] = {}

    def add(self, sample: Sample, names: Sequence[str]) -> None:
        """One more sample, the next row; `names` are those of its pictures in the data file."""
        numbers = self.numbers
        texts = [text for _, text in sample.turns]
        contents = [text.encode() for text in texts]
        numbers["turn_ends"].extend(islice(accumulate(map(len, contents), initial=self.size), 1, None))
        self.size += self.out.write(b"".join(contents))
        numbers["row_turns"].append(len(numbers["turn_ends"]) - 1)
        numbers["words"].append(num_words([" ".join(texts)]))
        answers = (turn for turn in range(1, len(texts), 2) if texts[turn].strip())
        numbers["first_answers"].append(next(answers, len(texts) - 1))
        self.ids.add(sample.sample_id.encode(errors=ANY_ID))
        marked = [turn for turn, text in enumerate(texts) if DEFAULT_IMAGE_TOKEN in text] if names else []
        numbers["last_picture_turns"].append(marked[-1] if marked else -1)
        self._add_pictures(sample, names)

    def _add_pictures(self, sample: Sample, names: Sequence[str]) -> None:
        """Numbers of pictures and of the group, each in the order of first appearance."""
        numbers = self.numbers
        row = len(numbers["groups"])
        own = tuple([self._picture(path, row) for path in sample.images])
        numbers["pictures"].extend(own)
        numbers["row_pictures"].append(len(numbers["pictures"]))
        numbers["groups"].append(self.group_of.setdefault(own, len(self.group_of)) if own else -1)
        for name, picture in zip(names, own, strict=True):
            if name not in self.known_names:
                self.known_names.add(name)
                self.names.add(name.encode())
                numbers["name_pictures"].append(picture)

    def _picture(self, path: str, row: int) -> int:
        number = self.picture_of.get(path)
        if number is None:
            number = self.picture_of[path] = len(self.picture_of)
            self.paths.add(os.fsencode(path))
            self.numbers["picture_rows"].append(row)
        return number

    def finish(self, facts: dict[str, object]) -> None:
        """Write the arrays and the footer, which keeps `facts` too."""
        sections: dict[str, tuple[str, int, int]] = {"texts": ("u1", 0, self.size)}
        arrays = {name: np.asarray(values) for name, values in self.numbers.items()}
        for name, texts in (("ids", self.ids), ("paths", self.paths), ("names", self.names)):
            arrays[name] = np.frombuffer(texts.content, np.uint8)
            arrays[f"{name}_ends"] = np.asarray(texts.ends)
        for name, values in arrays.items():
            self._align()
            sections[name] = (values.dtype.str, self.size, len(values))
            self.size += self.out.write(values.tobytes())
        footer = json.dumps({"format": FORMAT, "facts": facts, "sections": sections}).encode()
        self.out.write(footer)
        self.out.write(len(footer).to_bytes(LENGTH_BYTES, "little"))

    def _align(self) -> None:
        self.size += self.out.write(b"\0" * (-self.size % 8))


class SampleIndex(Sequence[Sample]):
    """Samples that are made when they are asked for, and arrays with a number for each row.

    Attributes, of R rows and P distinct pictures:
        groups: (R,) equal where rows show the same pictures in the same order, -1 without a picture.
        words: (R,) words of all turns, separated by blanks.
        picture_rows: (P,) the first row that shows each picture.
    """

    def __init__(self, content: np.ndarray) -> None:
        """`content`: the bytes of the layout above, (N,) of uint8."""
        self.content = content
        footer = read_footer(content)
        self.facts: dict[str, object] = footer["facts"]
        self.arrays = {
            name: content[start : start + count * np.dtype(kind).itemsize].view(kind)
            for name, (kind, start, count) in footer["sections"].items()
        }
        self.groups, self.words = self.arrays["groups"], self.arrays["words"]
        self.picture_rows = self.arrays["picture_rows"]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "SampleIndex":
        """The index of these samples, in memory; an index is returned as it is."""
        if isinstance(samples, SampleIndex):
            return samples

        def fill(writer: IndexWriter) -> dict[str, object]:
            for sample in samples:
                writer.add(sample, sample.images)
            return {}

        return index_in_memory(fill)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return SampleIndex, (self.content,)

    def __len__(self) -> int:
        return len(self.groups)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        first, last = self.arrays["row_turns"][row : row + 2].tolist()
        ends = self.arrays["turn_ends"][first : last + 1].tolist()
        content = self.arrays["texts"][ends[0] : ends[-1]].tobytes()
        turns = tuple(
            (ROLES[turn % 2], content[start - ends[0] : end - ends[0]].decode())
            for turn, (start, end) in enumerate(pairwise(ends))
        )
        start, end = self.arrays["row_pictures"][row : row + 2].tolist()
        images = tuple(self.picture_path(number) for number in self.arrays["pictures"][start:end].tolist())
        return Sample(self._text("ids", row).decode(errors=ANY_ID), row, images, turns)

    def _text(self, name: str, number: int) -> bytes:
        start, end = self.arrays[f"{name}_ends"][number : number + 2].tolist()
        return self.arrays[name][start:end].tobytes()

    def picture_path(self, number: int) -> str:
        """The absolute path of a distinct picture, by its number from 0."""
        return os.fsdecode(self._text("paths", number))

    def named_pictures(self) -> Iterator[tuple[str, str]]:
        """What the data file calls each picture, and the path that the name led to."""
        paths = [os.fsdecode(path) for path in self._texts("paths")]
        for name, picture in zip(self._texts("names"), self.arrays["name_pictures"].tolist(), strict=True):
            yield name.decode(), paths[picture]

    def _texts(self, name: str) -> Iterator[bytes]:
        content, ends = self.arrays[name].tobytes(), self.arrays[f"{name}_ends"].tolist()
        return (content[start:end] for start, end in pairwise(ends))

    @property
    def num_pictures(self) -> np.ndarray:
        """(R,) pictures of each row."""
        return np.diff(self.arrays["row_pictures"])

    @property
    def num_turns(self) -> np.ndarray:
        """(R,) turns of each row."""
        return np.diff(self.arrays["row_turns"])

    @property
    def num_bytes(self) -> np.ndarray:
        """(R,) bytes of all turns of each row."""
        return np.diff(self.arrays["turn_ends"][self.arrays["row_turns"]])

    def bytes_of_turns(self, *, per_turn: int) -> np.ndarray:
        """(R,) bytes of all turns of each row, and `per_turn` for each turn."""
        return self.num_bytes + per_turn * self.num_turns

    def bytes_to_learn(self, *, per_turn: int) -> np.ndarray:
        """(R,) bytes of the turns up to the first answer that is not blank and up to the last picture's
        turn, itself included, and `per_turn` for each: a sample that keeps so much has pictures and a target.
        """
        starts = self.arrays["row_turns"][:-1]
        num_turns = np.maximum(self.arrays["first_answers"], self.arrays["last_picture_turns"]) + 1
        ends = self.arrays["turn_ends"]
        return ends[starts + num_turns] - ends[starts] + per_turn * num_turns


def index_in_memory(fill: Callable[[IndexWriter], dict[str, object]]) -> SampleIndex:
    """What `fill` writes, kept in memory; it returns the facts for the footer."""
    out = io.BytesIO()
    writer = IndexWriter(out)
    writer.finish(fill(writer))
    return SampleIndex(np.frombuffer(out.getbuffer(), np.uint8))


def read_footer(content: np.ndarray) -> dict:
    """The JSON at the end of an index."""
    length = int.from_bytes(content[-LENGTH_BYTES:].tobytes(), "little")
    return json.loads(content[-LENGTH_BYTES - length : -LENGTH_BYTES].tobytes())
