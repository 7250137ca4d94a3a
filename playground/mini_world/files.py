"""The files that users of LLaVA bring: conversation JSON, question JSON lines, pictures; and the truth for
the scorer.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from playground.mini_world.questions import QA


@dataclass
class PictureFolder:
    """An image folder; each picture is written once per run, over what an interrupted run may have left."""

    folder: Path
    written: set[str] = field(default_factory=set)

    def save(self, name: str, picture: Image.Image) -> str:
        """Write a picture unless this run has; its file name within the folder."""
        file = f"{name}.png"
        if file not in self.written:
            save_picture(picture, self.folder / file)
            self.written.add(file)
        return file


def conversation_row(name: str, qa: QA, image: str | None) -> dict[str, object]:
    """One sample of the training JSON: a question and its answer, with or without a picture."""
    marker = "" if image is None else "<image>\n"
    row: dict[str, object] = {"id": name} if image is None else {"id": name, "image": image}
    turns = [{"from": "human", "value": marker + qa.text}, {"from": "gpt", "value": qa.answer}]
    return row | {"conversations": turns}


def question_row(name: str, text: str, split: str, image: str | None) -> dict[str, str]:
    """One line of a question file."""
    picture = {} if image is None else {"image": image}
    return {"question_id": name, **picture, "text": text, "category": split}


def write_json(rows: Sequence[Mapping[str, object]], file: Path) -> None:
    """A JSON array with one row per line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def write_lines(rows: Iterable[Mapping[str, object]], file: Path) -> None:
    """JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def save_picture(picture: Image.Image, file: Path) -> None:
    """A PNG; the folder is made if needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, compress_level=1)
