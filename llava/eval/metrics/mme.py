"""MME (Fu et al. 2023, arXiv 2306.13394): two questions on each picture, one with the answer yes, one no.

A task's score is its accuracy (share of right answers) plus its accuracy+ (share of pictures with both
answers right), each in per cent; perception and cognition are sums over their tasks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llava.eval.evidence import Figure, Scored, bootstrap_sums
from llava.eval.results_file import POINTS

GROUPS = {
    "perception": (
        "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork",
        "OCR",
    ),
    "cognition": ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
}  # fmt: skip
INSTRUCTIONS = ("Answer the question using a single word or phrase.", "Please answer yes or no.")
READ_LETTERS = 4
"""Yes or no must stand within the first letters of an answer, as in the benchmark's own program."""


@dataclass(frozen=True)
class MmeQuestion:
    """A question: its task, the name of its picture without suffix, its text, and whether yes is true."""

    task: str
    picture: str
    text: str
    is_yes: bool

    @property
    def name(self) -> str:
        """What tells it from all others."""
        return f"{self.task}/{self.picture} {plain(self.text)}"

    @property
    def image(self) -> str:
        """Its picture among those of all tasks."""
        return f"{self.task}/{self.picture}"


def plain(text: str) -> str:
    """A question without how to answer it, and with single blanks."""
    for instruction in INSTRUCTIONS:
        text = text.replace(instruction, " ")
    return " ".join(text.split())


def word_of(answer: str) -> str | None:
    """yes or no, as the benchmark's own program reads it; None for anything else, which is wrong."""
    start = answer.lower()[:READ_LETTERS]
    return next((word for word in ("yes", "no") if word in start), None)


def score(questions: Sequence[MmeQuestion], answers: Mapping[str, str]) -> list[Scored]:
    """A row per question, its group is the task; `answers`: name of a question -> text.

    A question without an answer counts as wrong.
    """
    rows = []
    for question in questions:
        text = answers.get(question.name)
        word = None if text is None else word_of(text)
        right = word is not None and (word == "yes") == question.is_yes
        rows.append(
            Scored(question.name, float(right), question.image, question.task, word, missing=text is None)
        )
    return rows


def groups_of(tasks: Sequence[str]) -> dict[str, list[str]]:
    """Perception and cognition -> those of their tasks that are there; without any a group is left out."""
    found = {name: [task for task in known if task in tasks] for name, known in GROUPS.items()}
    return {name: part for name, part in found.items() if part}


def figures_of(rows: Sequence[Scored]) -> dict[str, Figure]:
    """Perception and cognition in points, then score, accuracy and accuracy+ of each task."""
    tasks = sorted({str(row.group) for row in rows})
    asked = Counter(str(row.image) for row in rows)
    right = Counter(str(row.image) for row in rows if row.value == 1)

    def counts(row: Scored) -> tuple[float, float, float, float]:
        """Questions, right ones, and the row's share of its picture, and of a picture that is all right."""
        image = str(row.image)
        share = 1 / asked[image]
        return 1.0, row.value, share, share * (right[image] == asked[image])

    def by_task(row: Scored) -> list[float]:
        return [number * (row.group == task) for task in tasks for number in counts(row)]

    figures = {}
    for name, part in groups_of(tasks).items():
        places = [tasks.index(task) for task in part]
        figures[name] = bootstrap_sums(
            [row for row in rows if row.group in part],
            by_task,
            lambda sums, places=places: points(sums.reshape(len(tasks), 4, -1)[places]),
            unit=POINTS,
        )
    for task in tasks:
        kept = [row for row in rows if row.group == task]
        figures[f"{task}_accuracy"] = bootstrap_sums(kept, counts, lambda sums: 100 * sums[1] / sums[0])
        figures[f"{task}_accuracy_plus"] = bootstrap_sums(kept, counts, lambda sums: 100 * sums[3] / sums[2])
        figures[f"{task}_score"] = bootstrap_sums(kept, counts, lambda sums: points(sums[None]), unit=POINTS)
    return figures


def points(sums: np.ndarray) -> np.ndarray:
    """(tasks, 4, D) sums of `counts` -> sum over tasks of accuracy and accuracy+ in per cent: (D).

    nan for draws in which a task has no picture.
    """
    return 100 * (sums[:, 1] / sums[:, 0] + sums[:, 3] / sums[:, 2]).sum(axis=0)


def report(figures: Mapping[str, Figure], tasks: Sequence[str]) -> str:
    """The sums, each with its tasks below it; tasks that MME does not know stand at the end."""
    lines, groups = [], groups_of(tasks)
    known = {task for part in groups.values() for task in part}
    for name, part in groups.items():
        share = f"{len(part)} of {len(GROUPS[name])} tasks"
        lines.append(f"{name.capitalize()}: {figures[name].value:.2f} ({share})")
        lines += [task_line(task, figures) for task in part]
    lines += [task_line(task, figures) for task in sorted(set(tasks) - known)]
    return "\n".join(lines) + "\n"


def task_line(task: str, figures: Mapping[str, Figure]) -> str:
    """Score, accuracy and accuracy+ of a task."""
    score, accuracy, plus = (
        figures[f"{task}_{name}"].value for name in ("score", "accuracy", "accuracy_plus")
    )
    return f"  {task}: {score:.2f} (accuracy {accuracy:.2f}%, accuracy+ {plus:.2f}%)"


def result_lines(
    questions: Sequence[MmeQuestion], answers: Mapping[str, str]
) -> dict[str, list[tuple[str, str, str, str]]]:
    """Task -> (picture's text file, question, truth, answer), the two of a picture together, as the
    benchmark's own calculation.py reads them.
    """
    found: dict[str, list[tuple[str, str, str, str]]] = {}
    for one in sorted(questions, key=lambda one: (one.task, one.picture, not one.is_yes, one.text)):
        text = " ".join(answers.get(one.name, "").split())
        truth = "Yes" if one.is_yes else "No"
        found.setdefault(one.task, []).append((f"{one.picture}.txt", one.text, truth, text))
    return found
