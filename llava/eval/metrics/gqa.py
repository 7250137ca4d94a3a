"""GQA (Hudson and Manning 2019, arXiv 1902.09506): the share of answers that are the true word.

Answers are read as for the published figures of LLaVA: in lower case, without periods at the end, and nothing
else is forgiven.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llava.eval.evidence import Figure, Scored, figure

OPEN = "query"
"""The structural type of questions that are not answered by yes, no or one of two words in the question."""


@dataclass(frozen=True)
class GqaQuestion:
    """A question of the benchmark: its picture, its true answer, and its types."""

    question_id: str
    image: str
    answer: str
    structural: str
    semantic: str


def predicted(text: str) -> str:
    """The word that an answer gives."""
    return text.rstrip(".").lower()


def score(questions: Iterable[GqaQuestion], answers: Mapping[str, str]) -> list[Scored]:
    """A row per question, its group is the structural type; one without an answer counts as wrong."""
    rows = []
    for question in questions:
        text = answers.get(question.question_id)
        word = None if text is None else predicted(text)
        rows.append(
            Scored(
                question_id=question.question_id,
                value=float(word == question.answer),
                image=question.image,
                group=question.structural,
                parsed=word or None,
                missing=text is None,
            )
        )
    return rows


def figures_of(questions: Iterable[GqaQuestion], rows: Sequence[Scored]) -> dict[str, Figure]:
    """Accuracy over all, over binary and open questions, and per type."""
    semantic = {question.question_id: question.semantic for question in questions}
    parts = {
        "accuracy": list(rows),
        "binary": [row for row in rows if row.group != OPEN],
        "open": [row for row in rows if row.group == OPEN],
    }
    for row in sorted(rows, key=lambda row: (str(row.group), semantic[row.question_id])):
        parts.setdefault(f"structural_{row.group}", []).append(row)
    for row in sorted(rows, key=lambda row: semantic[row.question_id]):
        parts.setdefault(f"semantic_{semantic[row.question_id]}", []).append(row)
    return {name: figure(part) for name, part in parts.items() if part}


def report(figures: Mapping[str, Figure]) -> str:
    """A line per figure, all questions first."""
    return "".join(
        f"{name.replace('_', ' ').capitalize()}: {one.value:.2f}% ({one.n} questions)\n"
        for name, one in figures.items()
    )
