"""The files of VQAv2 and VizWiz: what people answered, and which questions are asked.

VQAv2: {"annotations": [{"question_id", "image_id", "answer_type", "answers": [{"answer"}, ...]}, ...]} and
{"questions": [{"question_id", ...}]}; VizWiz: [{"image", "answer_type", "answers"}, ...].
"""

from dataclasses import dataclass, replace
from pathlib import Path

from llava.eval.answer_files import entries_of, refuse_repeated
from llava.eval.metrics.pairing import TWICE, repeated_ids, tell
from llava.eval.metrics.vqa import VqaQuestion
from llava.records import (
    DataError,
    Problems,
    Row,
    is_json_lines,
    kind_of,
    parse_json,
    read_lines,
    read_text,
    shorten,
)

ANNOTATIONS = 'annotation file (JSON: {"annotations": [...]} of VQAv2, or the array of VizWiz)'
QUESTIONS = 'question file (JSON: {"questions": [...]} of VQAv2, or JSON lines with "question_id")'


@dataclass(frozen=True)
class Truth:
    """Annotations, by question id (VQAv2, `by_id`) or by picture (VizWiz)."""

    by_id: bool
    questions: dict[str, VqaQuestion]


def read_list(path: Path, key: str, wanted: str) -> tuple[list[Row], bool]:
    """The rows of {key: [...]}, of an array or of JSON lines, and whether it is the first of these."""
    text = read_text(path, wanted)
    if is_json_lines(text) and "\n" in text.strip():
        return read_lines(path, text), False
    try:
        value = parse_json(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.") from None
    if isinstance(value, dict) and "question_id" in value:
        return [Row(0, "line 1", value)], False
    rows = value.get(key) if isinstance(value, dict) else value
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no rows; a {wanted} was wanted.")
    return [Row(number, f"row {number}", row) for number, row in enumerate(rows)], isinstance(value, dict)


def read_annotations(path: Path) -> Truth:
    """What people answered. `DataError` lists all problems of the file."""
    rows, by_id = read_list(path, "annotations", ANNOTATIONS)
    problems = Problems(path)
    found = [annotation_of(row, by_id, problems) for row in rows]
    problems.raise_any()
    questions = [question for question in found if question is not None]
    repeated = repeated_ids(question.question_id for question in questions)
    if repeated:
        raise DataError(f"{path}: {tell(repeated, TWICE)}; keep one row for each.")
    return Truth(by_id, {question.question_id: question for question in questions})


def annotation_of(row: Row, by_id: bool, problems: Problems) -> VqaQuestion | None:
    """One question, or None when something is wrong with it."""
    before, value = len(problems.messages), row.value
    if not isinstance(value, dict):
        problems.add(row.place, f"found {kind_of(value)}; an object was wanted")
        return None
    keys = ("question_id", "image_id") if by_id else ("image", "image")
    for key in dict.fromkeys(keys):
        if type(value.get(key)) not in (str, int):
            found = shorten(value.get(key))
            problems.add(f"{row.place}, {key}", f"found {found}; a text or number was wanted")
    answers = value.get("answers")
    entries = answers if isinstance(answers, list) else []
    people = [one.get("answer") if isinstance(one, dict) else None for one in entries]
    if len(people) < 2 or not all(isinstance(one, str) for one in people):
        told = 'a list of at least 2 {"answer": text} was wanted; files of the test splits have none'
        problems.add(f"{row.place}, answers", f"found {shorten(answers)}; {told}")
    answer_type = value.get("answer_type")
    if not isinstance(answer_type, str | None):
        problems.add(f"{row.place}, answer_type", f"found {shorten(answer_type)}; a text was wanted")
    if len(problems.messages) > before:
        return None
    name, image = (str(value[key]) for key in keys)
    return VqaQuestion(name, image, tuple(str(one) for one in people), answer_type)


def read_asked(path: Path, truth: Truth) -> list[VqaQuestion]:
    """The questions of a question file with what people answered; `DataError` when that is not known of
    all.
    """
    rows, _ = read_list(path, "questions", QUESTIONS)
    entries = entries_of(rows, Problems(path), ("question_id",) if truth.by_id else ("question_id", "image"))
    refuse_repeated(entries, path, TWICE)
    keys = [entry.question_id if truth.by_id else entry.text("image") for entry in entries]
    pairs = list(zip(entries, keys, strict=True))
    unknown = [entry.question_id for entry, key in pairs if key not in truth.questions]
    if unknown:
        told = tell(unknown, "question has no annotation|questions have no annotation")
        raise DataError(f"{path}: {told}; give the questions and annotations of one split.")
    return [replace(truth.questions[key], question_id=entry.question_id) for entry, key in pairs]
