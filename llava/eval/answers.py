"""The answer file: JSON lines in the order of the questions, flushed batch by batch; a rerun goes on where it
stopped.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import shortuuid

from llava.errors import UsageError
from llava.eval.questions import Question
from llava.records import shorten


@dataclass(frozen=True)
class RunIdentity:
    """What answers depend on; kept beside them, so that two models' answers never mix in one file."""

    model_id: str
    settings: dict[str, object]


@dataclass
class AnswerFile:
    """Writes answers that arrive in any order as a file in the order of the questions."""

    path: Path
    questions: Sequence[Question]
    identity: RunIdentity
    done: int = 0
    waiting: dict[int, str] = field(default_factory=dict)

    def open(self) -> int:
        """Take up an unfinished file: drop a torn last line, check the rest; returns how many answers are
        there.

        Raises `UsageError` when the file holds answers to other questions or of another run.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        side = Path(f"{self.path}.run.json")
        wanted = json.dumps({"model_id": self.identity.model_id, **self.identity.settings}, sort_keys=True)
        if self.path.exists() and self.path.stat().st_size:
            if not side.is_file():
                raise UsageError(
                    f"{self.path} exists, but not {side.name}, which says what it holds; remove it "
                    "or name another file."
                )
            if side.read_text(encoding="utf-8").strip() != wanted:
                raise UsageError(
                    f"{self.path} holds answers of another model or other settings ({side.name}); "
                    "remove it or name another --answers-file."
                )
            self.done = self._check_lines()
        else:
            side.write_text(wanted + "\n", encoding="utf-8")
            self.path.touch()
        return self.done

    def _check_lines(self) -> int:
        """Number of good lines; a last line without its end is cut off."""
        content = self.path.read_bytes()
        good = content.rfind(b"\n") + 1
        if good < len(content):
            with self.path.open("r+b") as file:
                file.truncate(good)
        lines = content[:good].splitlines()
        for number, line in enumerate(lines):
            found = key_of_line(line)
            wanted = key_of(self.questions[number]) if number < len(self.questions) else None
            if found != wanted:
                raise UsageError(
                    f"{self.path} line {number + 1} {describe_key(found, 'answers')}, but the question file "
                    f"{describe_key(wanted, 'has')} there; remove the file or name another --answers-file."
                )
        return len(lines)

    def add(self, index: int, text: str) -> None:
        """Take the answer to question `index` (counted in all questions)."""
        self.waiting[index] = text

    def flush(self) -> None:
        """Write what can be written in order, durably."""
        lines = []
        while self.done in self.waiting:
            question, text = self.questions[self.done], self.waiting.pop(self.done)
            row = answer_row(question, text, self.identity.model_id)
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
            self.done += 1
        if lines:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())


Key = tuple[object, object, object]
"""(question_id, round_id or None, prompt): what one line answers."""


def key_of(question: Question) -> Key:
    """A question's key."""
    turned = question.round
    return question.question_id, None if turned is None else turned.round_id, question.shown_prompt


def key_of_line(line: bytes) -> Key | None:
    """The key of an answers file's line; None when it is no object."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    return row.get("question_id"), row.get("round_id"), row.get("prompt")


def describe_key(key: Key | None, verb: str) -> str:
    """A key for a message."""
    if key is None:
        return f"{verb} nothing"
    round_text = "" if key[1] is None else f" in round {key[1]}"
    return f"{verb} question {key[0]!r}{round_text}, {shorten(key[2])}"


def answer_row(question: Question, text: str, model_id: str) -> dict[str, object]:
    """One line of the answers file, its keys in the original's order; questions in rounds have three more."""
    turned = question.round
    return {
        "question_id": question.question_id,
        **({} if turned is None else {"round_id": turned.round_id}),
        "prompt": question.shown_prompt,
        "text": text,
        **({} if turned is None else {"options": turned.options, "option_char": turned.option_char}),
        "answer_id": shortuuid.uuid(),
        "model_id": model_id,
        "metadata": {},
    }
