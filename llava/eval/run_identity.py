"""What answers depend on, kept beside an answers file, so that those of two runs never mix in one file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.errors import UsageError
from llava.eval.answer_storage import replace_file
from llava.eval.questions import Question
from llava.eval.versions import versions
from llava.model.weight_files import is_hash
from llava.records import shorten

ABSENT = object()
ADDED_LATER = ("base", "config", "image_folder")
"""What files of earlier versions do not say; it is not held against them."""
QUESTIONS = "questions"
TOLD = ("prompt", "versions", "earlier_versions")
"""What the file says beside that, for whoever reads the scores; it is never compared. A file that is gone on
with under other versions keeps those of before.
"""
SHOWN_HASH = 12


@dataclass(frozen=True)
class RunIdentity:
    """What answers depend on: the model's name, and everything else by its name.

    `prompt`: how a question is put to the model, with {question} in its place; None where a server does it.
    """

    model_id: str
    settings: dict[str, object]
    prompt: str | None = None

    def as_row(self, questions: Sequence[Question]) -> dict[str, object]:
        """What is compared of the file beside the answers."""
        asked = {"count": len(questions), "sha256": hash_of(questions)}
        return {"model_id": self.model_id, **self.settings, QUESTIONS: asked}


def hash_of(questions: Sequence[Question]) -> str:
    """SHA-256 of what is asked, pictures by their names."""
    digest = hashlib.sha256()
    for one in questions:
        turned = None if one.round is None else one.round.round_id
        digest.update(json.dumps([one.question_id, turned, one.text, one.image]).encode() + b"\n")
    return digest.hexdigest()


def write_identity(side: Path, identity: RunIdentity, questions: Sequence[Question]) -> None:
    """Write the file beside the answers."""
    now = versions()
    told = dict(zip(TOLD, (identity.prompt, now, earlier_versions(side, now)), strict=True))
    row = json.dumps(identity.as_row(questions) | told, sort_keys=True)
    replace_file(side, row.encode() + b"\n")


def earlier_versions(side: Path, now: Mapping[str, str]) -> list[object]:
    """The versions, other than those of `now`, under which the answers beside a file were begun."""
    try:
        then = json.loads(side.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    if not isinstance(then, dict):
        return []
    found = [*(then.get("earlier_versions") or []), then.get("versions")]
    return [one for place, one in enumerate(found) if one not in (None, now) and one not in found[:place]]


def check_identity(path: Path, side: Path, identity: RunIdentity, questions: Sequence[Question]) -> None:
    """`UsageError` that lists every difference between the run that began the file `path` and this one."""
    try:
        then = json.loads(side.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{path} exists, but not {side.name}, which says what it holds; remove it, name another file, or "
            "start anew with --overwrite."
        ) from None
    except ValueError as error:
        raise UsageError(f"{side} is damaged ({error}); start anew with --overwrite.") from None
    if not isinstance(then, dict):
        raise UsageError(f"{side} is damaged (no object); start anew with --overwrite.")
    asked = then.pop(QUESTIONS, None)
    for name in TOLD:
        then.pop(name, None)
    told = differences(then, {"model_id": identity.model_id, **identity.settings})
    if not same_start(asked, questions):
        told.append("questions: the file had others then (ids, texts, pictures or their order)")
    if told:
        listed = "\n".join(f"  {line}" for line in told)
        raise UsageError(
            f"{path} holds answers of another model or other settings ({side.name}):\n{listed}\n"
            "Give the flags of then, name another --answers-file, or start anew with --overwrite (the old "
            "file is kept beside it)."
        )


def differences(
    first: Mapping[str, object], second: Mapping[str, object], when: tuple[str, str] = ("then", "now")
) -> list[str]:
    """`name: then X, now Y` for everything in which two runs differ."""
    told = []
    for name in sorted(first.keys() | second.keys()):
        before, after = first.get(name, ABSENT), second.get(name, ABSENT)
        if before != after and not (before is ABSENT and name in ADDED_LATER):
            told.append(f"{name}: {when[0]} {shown(before)}, {when[1]} {shown(after)}")
    return told


def shown(value: object) -> str:
    """A value for a message, hashes by their start."""
    if value is ABSENT:
        return "not set"
    text = str(value)
    return f"{text[:SHOWN_HASH]}..." if is_hash(text) else shorten(value, 120)


def same_start(asked: object, questions: Sequence[Question]) -> bool:
    """Whether the questions begin with those that a file was begun for; more may follow."""
    if not isinstance(asked, dict):
        return True  # of an earlier version: the lines alone are compared
    count = asked.get("count")
    if not isinstance(count, int) or count > len(questions):
        return False
    return hash_of(questions[:count]) == asked.get("sha256")
