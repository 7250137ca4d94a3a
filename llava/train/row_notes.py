"""What is worth knowing about good rows of a conversation file, though one can train on them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.records import Row, shorten
from llava.train.sample_index import Sample

MARKERS = re.compile(
    r"</?s>|<unk>|<pad>|<\|\w+\|>|\[/?INST\]|<</?SYS>>|<im_(?:start|end|patch)>|<image-placeholder>"
)
"""Texts that tokenizers or templates take for marks of their own."""


@dataclass(frozen=True)
class RowNote:
    """`kind` counts it, `field` is the path within the row, `message` says what is done about it."""

    kind: str
    field: str
    message: str


@dataclass
class RowNotes:
    """Notes of the rows of one file; it knows the ids of earlier rows."""

    first_of: dict[str, str] = field(default_factory=dict)
    id_types: dict[str, str] = field(default_factory=dict)
    counts: dict[str, list] = field(default_factory=dict)

    def count(self, row: Row, sample: Sample) -> None:
        """Count a row's notes for `counts`: kind -> [number of notes, the first one's row]."""
        for note in self.of(row, sample):
            self.counts.setdefault(note.kind, [0, row.place])[0] += 1

    def of(self, row: Row, sample: Sample) -> Iterator[RowNote]:
        """The notes of the file's next good row."""
        value = row.value
        assert isinstance(value, dict), "a good row is an object"
        sample_id = value.get("id")
        if sample_id is not None:
            yield from self._of_id(sample_id, row.place)
        if len(value["conversations"]) > len(sample.turns):
            yield RowNote("first turn from gpt", "conversations[0]", "it is dropped, as in the original")
        texts = [text for _, text in sample.turns]
        if not all(map(str.strip, texts)):
            yield from empty_turns(texts)
        joined = "".join(texts)
        num_marks = joined.count(DEFAULT_IMAGE_TOKEN)
        if num_marks > len(sample.images):
            found = f"found {num_marks} <image> for {len(sample.images)} pictures"
            yield RowNote(
                "several <image> in a turn", "conversations", f"{found}; those of one turn count as one"
            )
        if joined.count("<") > num_marks or "INST]" in joined:
            yield from marks_in(texts)

    def _of_id(self, sample_id: object, place: str) -> Iterator[RowNote]:
        """The same id again, also as another type; and ids of two types."""
        first = self.first_of.setdefault(str(sample_id), place)
        if first != place:
            found = f"found {shorten(sample_id)} again, {first} has it too"
            yield RowNote(
                "id repeated", "id", f"{found}; both rows are used, but messages cannot tell them apart"
            )
        kind = "text" if isinstance(sample_id, str) else "number"
        if kind not in self.id_types:
            self.id_types[kind] = place
            if len(self.id_types) > 1:
                other = "number" if kind == "text" else "text"
                found = f"found a {kind}, while {self.id_types[other]} has a {other}"
                yield RowNote("ids of two types", "id", f"{found}; all are used as texts")


def empty_turns(texts: list[str]) -> Iterator[RowNote]:
    """Empty texts; at least one answer is not."""
    for turn, text in enumerate(texts):
        if text.strip():
            continue
        if turn % 2:
            yield RowNote("answer empty", f"conversations[{turn}].value", "an empty answer teaches nothing")
        else:
            yield RowNote("question empty", f"conversations[{turn}].value", "the question is left open")


def marks_in(texts: list[str]) -> Iterator[RowNote]:
    """Texts that hold a mark of a tokenizer or template; the first of each turn."""
    for turn, text in enumerate(texts):
        found = MARKERS.search(text)
        if found:
            message = f"found {found[0]!r}, which tokenizers or templates may take for a mark of their own"
            yield RowNote(
                "special token in a text",
                f"conversations[{turn}].value",
                f"{message}; reword it unless it is meant",
            )
