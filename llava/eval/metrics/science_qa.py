"""ScienceQA (Lu et al. 2022): the letter that an answer chooses, and the shares of right ones.

Read as for the published figures: a lone letter, `B. because`, or `The answer is B.` exactly once.
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from llava.eval.evidence import Figure, Scored, figure

LETTERS = ("A", "B", "C", "D", "E")
SENTENCE = re.compile(r"The answer is ([A-Z]).")
FAILED = "FAILED"
"""Stands for an answer that is missing, and for a letter that is not found."""


@dataclass(frozen=True)
class Answer:
    """What a model said to a problem; the prompt tells whether it saw a picture."""

    text: str
    prompt: str


NO_ANSWER = Answer(FAILED, "Unknown")


def chosen_letter(text: str, letters: Sequence[str] = LETTERS) -> str:
    """The letter of an answer, or `FAILED`. It may be one that the problem does not offer."""
    if text in letters:
        return text
    if len(text) >= 3 and text[0] in letters and text[1:3] == ". ":
        return text[0]
    found = SENTENCE.findall(text)
    return found[0] if len(found) == 1 else FAILED


@dataclass
class Scores:
    """The judged answers of a split, in its order."""

    correct: list[dict[str, object]] = field(default_factory=list)
    incorrect: list[dict[str, object]] = field(default_factory=list)
    choices: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return len(self.correct) + len(self.incorrect)

    @property
    def accuracy(self) -> float:
        """Per cent."""
        return percent(len(self.correct), self.total)

    @property
    def image_accuracy(self) -> float:
        """Per cent of the problems whose prompt has a picture; nan when none has."""
        right = sum(bool(entry["is_multimodal"]) for entry in self.correct)
        return percent(right, right + sum(bool(entry["is_multimodal"]) for entry in self.incorrect))

    def analysis(self) -> dict[str, object]:
        """What the original writes to --output-file."""
        return {"correct": self.correct, "incorrect": self.incorrect}

    def result(self) -> dict[str, object]:
        """What the original writes to --output-result; a choice is the place of a letter, -1 for none."""
        return {
            "acc": self.accuracy,
            "correct": len(self.correct),
            "count": self.total,
            "results": self.choices,
            "outputs": self.texts,
        }

    def line(self) -> str:
        """What the original prints."""
        return (
            f"Total: {self.total}, Correct: {len(self.correct)}, Accuracy: {self.accuracy:.2f}%, "
            f"IMG-Accuracy: {self.image_accuracy:.2f}%\n"
        )


def scored_of(scores: Scores, answered: Container[str]) -> list[Scored]:
    """A row per problem; its group tells whether the model saw a picture."""
    judged = [(entry, 1.0) for entry in scores.correct] + [(entry, 0.0) for entry in scores.incorrect]
    return [
        Scored(
            question_id=str(entry["question_id"]),
            value=value,
            group="image" if entry["is_multimodal"] else "text",
            parsed=None if entry["parsed_ans"] == FAILED else str(entry["parsed_ans"]),
            missing=str(entry["question_id"]) not in answered,
        )
        for entry, value in judged
    ]


def figures_of(rows: Sequence[Scored]) -> dict[str, Figure]:
    """Accuracy over all problems, and over those with a picture when there are any."""
    pictured = [row for row in rows if row.group == "image"]
    return {"accuracy": figure(rows)} | ({"image_accuracy": figure(pictured)} if pictured else {})


def percent(part: int, whole: int) -> float:
    """100 x part / whole; nan of nothing, since no question is neither all right nor all wrong."""
    return part / whole * 100 if whole else float("nan")


@dataclass(frozen=True)
class Problem:
    """A problem of the benchmark: how many choices it has, and the place of the right one."""

    problem_id: str
    num_choices: int
    right: int


def score(
    problems: Sequence[Problem], answers: Mapping[str, Answer], letters: Sequence[str] = LETTERS
) -> Scores:
    """Judge the answers of a split; a problem without one counts as wrong."""
    scores = Scores()
    for problem in problems:
        answer = answers.get(problem.problem_id, NO_ANSWER)
        letter, name = chosen_letter(answer.text, letters), problem.problem_id
        offered = list(letters[: problem.num_choices])
        choice = offered.index(letter) if letter in offered else -1
        scores.choices[name], scores.texts[name] = choice, answer.text
        judged = scores.correct if choice == problem.right else scores.incorrect
        judged.append(
            {
                "question_id": name,
                "parsed_ans": letter,
                "ground_truth": letters[problem.right],
                "question": answer.prompt,
                "pred": answer.text,
                "is_multimodal": "<image>" in answer.prompt,
            }
        )
    return scores
