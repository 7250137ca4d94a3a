"""SEED-Bench (Li et al. 2023): the exact letter, per type of question, over all, and per kind of data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

KINDS = ("image", "video")


@dataclass(frozen=True)
class SeedQuestion:
    """A question of the benchmark, its id as its file has it; `kind` is image or video."""

    question_id: str | int
    type_id: int
    kind: str
    answer: str


def percent(right: Sequence[bool]) -> float:
    """Per cent of True; nan of nothing."""
    return sum(right) / len(right) * 100 if right else float("nan")


def report(
    questions: Iterable[SeedQuestion], answers: Mapping[str, str], type_names: Mapping[int, str]
) -> str:
    """What the original prints; a type without a right answer has 0 %, a kind without questions nan.

    `answers`: question id -> text; a question without one counts as wrong.
    """
    judged = [(question, answers.get(str(question.question_id)) == question.answer) for question in questions]
    lines = []
    for type_id in sorted({question.type_id for question, _ in judged}):
        rate = percent([right for question, right in judged if question.type_id == type_id])
        lines.append(f"{type_names[type_id]}: {rate:.2f}%")
    lines.append(f"Total accuracy: {percent([right for _, right in judged]):.2f}%")
    for kind in KINDS:
        rate = percent([right for question, right in judged if question.kind == kind])
        lines.append(f"{kind} accuracy: {rate:.2f}%")
    return "\n".join(lines) + "\n"
