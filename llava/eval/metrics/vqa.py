"""VQAv2 (Goyal et al. 2017) and VizWiz (Gurari et al. 2018): soft accuracy against ten people's answers.

Answers and people's answers are normalised as on the challenge server; what an answer earns is the mean over
people of min(1, matches among the others / 3).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llava.eval.evidence import Figure, Scored, figure
from llava.eval.metrics.vqa_text import normalise_answer, soft_accuracy
from llava.eval.scored_file import by_group


@dataclass(frozen=True)
class VqaQuestion:
    """A question: its picture, what people answered, and the type of their answer (yes/no, number, ...)."""

    question_id: str
    image: str
    people: tuple[str, ...]
    answer_type: str | None


def score(questions: Iterable[VqaQuestion], answers: Mapping[str, str]) -> list[Scored]:
    """A row per question, its group is the type of its answer; one without an answer earns nothing."""
    rows = []
    for question in questions:
        text = answers.get(question.question_id)
        rows.append(
            Scored(
                question_id=question.question_id,
                value=0.0 if text is None else min(1.0, soft_accuracy(text, question.people)),
                image=question.image,
                group=question.answer_type,
                parsed=None if text is None else normalise_answer(text) or None,
                missing=text is None,
            )
        )
    return rows


def figures_of(rows: Sequence[Scored]) -> dict[str, Figure]:
    """Accuracy over all, and per type of answer."""
    parts = {"accuracy": list(rows)}
    parts |= {f"type_{group}": part for group, part in by_group(rows).items()}
    return {name: figure(part) for name, part in parts.items()}


def report(figures: Mapping[str, Figure]) -> str:
    """A line per figure, all questions first."""
    return "".join(
        f"{name.removeprefix('type_').capitalize()}: {one.value:.2f}% ({one.n} questions)\n"
        for name, one in figures.items()
    )
