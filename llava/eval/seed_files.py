"""SEED-Bench's own file: {"questions": [...], "question_type": {name: number}}."""

from dataclasses import dataclass
from pathlib import Path

from llava.eval.metrics.pairing import TWICE, repeated_ids, tell
from llava.eval.metrics.seed import SeedQuestion
from llava.records import Problems, Row, field_of, kind_of, read_object, shorten

ANNOTATIONS = 'annotation file (JSON with "questions" and "question_type")'


@dataclass(frozen=True)
class SeedBench:
    """All questions, and the names of their types by number."""

    questions: tuple[SeedQuestion, ...]
    type_names: dict[int, str]


def read_seed(path: Path) -> SeedBench:
    """The annotation file. `DataError` lists all its problems."""
    content, problems = read_object(path, ANNOTATIONS), Problems(path)
    types, rows = content.get("question_type"), content.get("questions")
    if not isinstance(types, dict) or not all(type(number) is int for number in types.values()):
        problems.add("question_type", f"found {shorten(types)}; an object (name to number) was wanted")
        types = {}
    names = {number: name for name, number in types.items()}
    if not isinstance(rows, list) or not rows:
        problems.add("questions", f"found {kind_of(rows)}; an array of questions was wanted")
        rows = []
    found = [question_of(Row(k, f"question {k}", row), names, problems) for k, row in enumerate(rows)]
    questions = tuple(question for question in found if question is not None)
    repeated = repeated_ids(question.question_id for question in questions)
    if repeated:
        problems.add("question_id", f"{tell(repeated, TWICE)}; keep one question of each")
    problems.raise_any()
    return SeedBench(questions, names)


def question_of(row: Row, names: dict[int, str], problems: Problems) -> SeedQuestion | None:
    """One question, or None when something is wrong with it."""
    before = len(problems.messages)
    question_id, answer, kind = (
        field_of(row, key, problems) for key in ("question_id", "answer", "data_type")
    )
    if not isinstance(row.value, dict):
        return None
    type_id = row.value.get("question_type_id")
    if type(type_id) is not int or type_id not in names:
        known = ", ".join(str(number) for number in names)
        problems.add(f"{row.place}, question_type_id", f"found {shorten(type_id)}; one of {known} was wanted")
    if len(problems.messages) > before or type(type_id) is not int:
        return None
    number = question_id if isinstance(question_id, int) else str(question_id)
    data = row.value.get("data_id")
    return SeedQuestion(number, type_id, str(kind), str(answer), None if data is None else str(data))
