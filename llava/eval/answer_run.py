"""From opened questions to finished lines: what every answering program does once its model is there.

Alone, or as one of several ranks (torchrun), each of which answers the questions of its own pictures.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tqdm import tqdm

from llava.errors import PARTIAL, UsageError
from llava.eval.answers import AnswerFile
from llava.eval.outcomes import Failure, FirstAnswers, Outcome, describe_failures
from llava.eval.questions import Question
from llava.eval.run_identity import RunIdentity
from llava.terminal import note


class Answering(Protocol):
    """Whatever answers questions: a model of our own, or a server."""

    def batches(self, questions: Sequence[Question]) -> Iterator[list[tuple[int, Outcome]]]:
        """(index, answer or failure) of every question, in any order, as they are there together."""
        ...


class Target(Protocol):
    """Where answers go, by the number of their question among all."""

    def add(self, index: int, outcome: Outcome) -> None: ...

    def flush(self) -> None: ...


@dataclass(frozen=True)
class RunSettings:
    """How a run behaves when something goes wrong: `strict` stops at the first question that fails."""

    strict: bool = False
    early_stop: bool = True
    overwrite: bool = False
    show_bar: bool = True


def answer_alone(
    answering: Answering, file: AnswerFile, identity: RunIdentity, settings: RunSettings
) -> None:
    """Answer in this process what a file does not hold yet, and say how it ended."""
    start = file.open(identity, overwrite=settings.overwrite)
    write_answers(answering, file, file.questions, file.todo(), settings)
    file.finish()
    end_run(file, start=start)


def write_answers(
    answering: Answering,
    target: Target,
    questions: Sequence[Question],
    todo: Sequence[int],
    settings: RunSettings,
) -> None:
    """Answer the questions `todo`; each batch is on the disk before the next one is begun.

    `UsageError` where a run is not worth going on with, see `FirstAnswers`, and at failures when `strict`.
    """
    first = FirstAnswers() if settings.early_stop else FirstAnswers(limit=None)
    shown = settings.show_bar and sys.stderr.isatty()
    total, start = len(questions), len(questions) - len(todo)
    with tqdm(total=total, initial=start, disable=not shown, unit="question") as bar:
        for batch in answering.batches([questions[index] for index in todo]):
            for place, outcome in batch:
                target.add(todo[place], outcome)
            target.flush()
            bar.update(len(batch))
            for place, outcome in batch:
                question = questions[todo[place]]
                if settings.strict and isinstance(outcome, Failure):
                    raise UsageError(f"question {question.question_id!r}: {outcome.reason} (--strict)")
                first.see(question, outcome)


def end_run(file: AnswerFile, *, start: int) -> None:
    """Say what the file holds; `SystemExit` with the code for part of a result when questions have failed."""
    total, failures = len(file.questions), file.failures()
    note(f"{total} answers ({start} were there): {file.path}\n")
    if not failures:
        return
    note(
        f"error: {len(failures)} of {total} questions ({len(failures) / total:.1%}) could not be answered:\n"
        f"{describe_failures(failures)}\n"
        'Their lines have an empty text and "error" in their metadata. Mend the cause and give the same '
        "command again: it asks only these.\n"
    )
    raise SystemExit(PARTIAL)
