"""SEED-Bench (Li et al. 2023): the exact letter, per type of question, over all, and per kind of data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llava.eval.evidence import Figure, Scored, figure
from llava.eval.scored_file import by_group

LETTERS = ("A", "B", "C", "D")
KINDS = ("image", "video")


@dataclass(frozen=True)
class SeedQuestion:
    """A question of the benchmark, its id as its file has it; `kind` is image or video, `data_id` its picture
    or video where the file says it.
    """

    question_id: str | int
    type_id: int
    kind: str
    answer: str
    data_id: str | None = None


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


def scored_of(
    questions: Iterable[SeedQuestion], answers: Mapping[str, str], type_names: Mapping[int, str]
) -> list[Scored]:
    """A row per question; its group is its type. Nothing but a letter by itself is read."""
    rows = []
    for question in questions:
        name = str(question.question_id)
        said = answers.get(name)
        rows.append(
            Scored(
                question_id=name,
                value=float(said == question.answer),
                image=question.data_id,
                group=type_names[question.type_id],
                parsed=said if said in LETTERS else None,
                missing=said is None,
            )
        )
    return rows


def figures_of(questions: Iterable[SeedQuestion], rows: Sequence[Scored]) -> dict[str, Figure]:
    """Accuracy over all, per kind of data and per type."""
    kinds = {str(question.question_id): question.kind for question in questions}
    parts = {"accuracy": list(rows)}
    for kind in KINDS:
        parts[kind] = [row for row in rows if kinds[row.question_id] == kind]
    parts |= {f"type_{group}": part for group, part in by_group(rows).items()}
    return {name: figure(part) for name, part in parts.items() if part}
