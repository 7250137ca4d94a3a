"""A quick engine behind the real answering code, and answering processes that are killed on purpose.

Children are forked from the test's process, in which everything is imported: one costs milliseconds.
"""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.eval import answer_storage
from llava.eval.answer_run import RunSettings, answer_alone
from llava.eval.answers import AnswerFile
from llava.eval.outcomes import Outcome
from llava.eval.questions import Question
from llava.eval.run_identity import RunIdentity

IDENTITY = RunIdentity("quick", {"temperature": 0.0, "weights": "0" * 64})
WINDOW = 16
KILLED = -signal.SIGKILL

Row = dict[str, object]


def make_questions(count: int, seed: int = 0) -> list[Question]:
    """Questions about a few pictures and none, with ids of both kinds."""
    rng = random.Random(seed)
    questions = []
    for number in range(count):
        image = rng.choice(["a.png", "b.png", None])
        name: int | str = number if number % 3 else f"q{number}"
        questions.append(Question(name, f"Question {number} of {seed}, é\u2028?", image, image, None))
    return questions


def true_answer(question: Question) -> str:
    """The only right answer to a question."""
    return f"{question.text} is answered,\nwith {question.image}."


@dataclass
class QuickEngine:
    """Answers in batches, out of order within a window as the real engine does; notes what it computes.

    `before_batch` gets the number of answers so far.
    """

    batch_size: int
    log: Path
    before_batch: Callable[[int], None] = lambda count: None

    def batches(self, questions: Sequence[Question]) -> Iterator[list[tuple[int, Outcome]]]:
        """All questions."""
        count = 0
        for start in range(0, len(questions), WINDOW):
            order = list(range(start, min(start + WINDOW, len(questions))))
            random.Random(len(questions)).shuffle(order)
            for first in range(0, len(order), self.batch_size):
                chosen = order[first : first + self.batch_size]
                self.before_batch(count)
                with self.log.open("ab", buffering=0) as file:
                    file.write(b"%d\n" % len(chosen))
                count += len(chosen)
                yield [(index, true_answer(questions[index])) for index in chosen]

    def num_computed(self) -> int:
        """Answers computed by all processes that share the log."""
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0


def answer(path: Path, questions: Sequence[Question], engine: QuickEngine) -> None:
    """What an answering program does once its model is there."""
    with AnswerFile(path, questions) as file:
        file.check()
        answer_alone(engine, file, IDENTITY, RunSettings(show_bar=False))


def in_child(work: Callable[[], None]) -> int:
    """Start work in a forked process; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 2)
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except ValueError:  # `UsageError`, as the programs report it
        code = 2
    finally:
        os._exit(code)


def end_of(child: int) -> int:
    """How a child ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_self() -> None:
    """As `kill -9` would."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(engine: QuickEngine, rng: random.Random, count: int) -> None:
    """Let the process that runs `engine` die at a random answer or a random write of one.

    A write dies before a byte, in the middle, before it is synced, or after that.
    """
    if rng.random() < 0.4:
        at = rng.randrange(count)
        engine.before_batch = lambda done: kill_self() if done >= at else None
        return
    countdown = [rng.randrange(1, max(2, count // engine.batch_size))]
    share = rng.choice([0.0, rng.random(), 1.0, 2.0])
    append = answer_storage.append

    def torn(path: Path, content: bytes) -> None:
        countdown[0] -= 1
        if countdown[0]:
            append(path, content)
            return
        with path.open("ab", buffering=0) as file:
            file.write(content[: int(share * len(content))])
        kill_self()

    for module in ("answers", "journal"):
        __import__(f"llava.eval.{module}", fromlist=["append"]).append = torn


def rows_of(path: Path) -> list[Row]:
    """The lines of an answers file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def whole_lines(path: Path) -> list[bytes]:
    """Lines with their ends; a torn one is left out."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)


@dataclass
class Tally:
    """What became of answers: each of these must be 0, and `recomputed` at most `allowed`."""

    answers: int = 0
    lost: int = 0
    duplicates: int = 0
    changed: int = 0
    recomputed: int = 0
    most_recomputed: int = 0

    def compare(self, rows: Sequence[Row], questions: Sequence[Question]) -> None:
        """Rows of a finished file with what must stand there."""
        found = [(row["question_id"], row["prompt"]) for row in rows]
        self.answers += len(questions)
        self.lost += len({(one.question_id, one.text) for one in questions} - set(found))
        self.duplicates += len(found) - len(set(found))
        texts = [true_answer(one) for one in questions]
        self.changed += sum(
            row["text"] != text or row["metadata"] != {} for row, text in zip(rows, texts, strict=False)
        )
        assert found == [(one.question_id, one.text) for one in questions], "in the order of the questions"

    def keep(self, before: list[bytes], after: list[bytes]) -> None:
        """Lines that were finished at the crash must be the same bytes."""
        self.changed += sum(old != new for old, new in zip(before, after[: len(before)], strict=True))

    def recompute(self, count: int) -> None:
        """Answers that were computed more than once after one fault."""
        self.recomputed += count
        self.most_recomputed = max(self.most_recomputed, count)

    def __str__(self) -> str:
        return (
            f"{self.answers} answers: {self.lost} lost, {self.duplicates} duplicates, {self.changed} "
            f"changed, {self.recomputed} recomputed (at most {self.most_recomputed} per fault)"
        )

    def check(self, *, allowed: int) -> None:
        """The promise."""
        assert (self.lost, self.duplicates, self.changed) == (0, 0, 0), str(self)
        assert self.most_recomputed <= allowed, str(self)
