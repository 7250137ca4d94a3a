"""One line of an answers file: what it holds, which question it answers, and how it is read back."""

import json
from collections.abc import Mapping

import shortuuid

from llava.eval.outcomes import Failure, Outcome
from llava.eval.questions import Question
from llava.records import shorten, text_problem

Row = dict[str, object]
Key = tuple[object, object, object]
"""(question_id, round_id or None, prompt): what one line answers."""
ERROR = "error"
"""Stands in a line's metadata, with the reason, when its question could not be answered."""


def answer_row(question: Question, outcome: Outcome, model_id: str) -> Row:
    """A line, its keys in the original's order; questions in rounds have three more.

    Without an answer the text is empty and the metadata hold the reason.
    """
    turned = question.round
    failed = isinstance(outcome, Failure)
    return {
        "question_id": question.question_id,
        **({} if turned is None else {"round_id": turned.round_id}),
        "prompt": question.shown_prompt,
        "text": "" if isinstance(outcome, Failure) else whole_characters(outcome),
        **({} if turned is None else {"options": turned.options, "option_char": turned.option_char}),
        "answer_id": shortuuid.uuid(),
        "model_id": model_id,
        "metadata": {ERROR: reason_of(question, outcome)} if failed else {},
    }


def reason_of(question: Question, failure: Failure) -> str:
    """Why there is no answer; the picture by its name in the question file, wherever the folder is."""
    if question.image is None or question.image_path is None:
        return failure.reason
    return failure.reason.replace(question.image_path, question.image)


def whole_characters(text: str) -> str:
    """A text that can be written as UTF-8: halves of characters, which servers may send, become U+FFFD."""
    if text_problem(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def row_line(row: Row) -> bytes:
    """The line, with its end."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def parse_row(line: bytes) -> Row | None:
    """A line's object; None when it is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def error_of(row: Mapping[str, object]) -> str | None:
    """Why the line holds no answer; None when it does."""
    metadata = row.get("metadata")
    error = metadata.get(ERROR) if isinstance(metadata, dict) else None
    return None if error is None else str(error)


def key_of(question: Question) -> Key:
    """A question's key."""
    turned = question.round
    return question.question_id, None if turned is None else turned.round_id, question.shown_prompt


def key_of_row(row: Row | None) -> Key | None:
    """The key of an answers file's line."""
    return None if row is None else (row.get("question_id"), row.get("round_id"), row.get("prompt"))


def describe_key(key: Key | None, verb: str) -> str:
    """A key for a message."""
    if key is None:
        return f"{verb} nothing"
    round_text = "" if key[1] is None else f" in round {key[1]}"
    return f"{verb} question {key[0]!r}{round_text}, {shorten(key[2])}"
