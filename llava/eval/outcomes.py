"""What comes of a question: an answer, or the reason why there is none; and a look at the first answers.

A question without an answer gets a line too, with that reason, so that nobody scores it as wrong unseen.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from llava.errors import UsageError
from llava.eval.questions import Question

FIRST_ANSWERS = 32
"""So many answers without any content in a row, from the first on, stop a run."""
SHOWN_REASONS, SHOWN_IDS = 20, 8
LOOPS, LONGEST_LOOP = 8, 48
"""A text that consists of so many repetitions of so many characters at most is a loop."""


@dataclass(frozen=True)
class Failure:
    """Why a question could not be answered."""

    reason: str


Outcome = str | Failure


def is_loop(text: str) -> bool:
    """Whether a text only repeats one word, piece or phrase, the last time maybe cut off."""
    text = text.strip() + " "
    lengths = range(1, min(LONGEST_LOOP, len(text) // LOOPS) + 1)
    return any(text[length:-1] == text[: -length - 1] for length in lengths)


@dataclass
class FirstAnswers:
    """Watches a run's first `limit` outcomes and stops it when nothing of use is among them (None: never)."""

    limit: int | None = FIRST_ANSWERS
    empty: int = 0
    loops: int = 0
    failed: set[object] = field(default_factory=set)

    def see(self, question: Question, outcome: Outcome) -> None:
        """`UsageError` when the first answers are all empty or loops, or so many pictures in a row fail.

        Questions about one picture that cannot be read count as one.
        """
        if self.limit is None:
            return
        if isinstance(outcome, Failure):
            self.failed.add(question.image_path or (question.question_id, question.text))
        elif outcome.strip() and not is_loop(outcome):
            self.limit = None
            return
        elif outcome.strip():
            self.loops += 1
        else:
            self.empty += 1
        self._judge(outcome)

    def _judge(self, last: Outcome) -> None:
        """Raise when it is enough."""
        assert self.limit is not None
        if self.empty + self.loops >= self.limit:
            raise UsageError(
                f"the first {self.limit} answers say nothing ({self.empty} are empty, {self.loops} repeat "
                "one word); the template is probably not the one that the model was tuned with "
                "(--conv-mode), or the checkpoint is damaged or lacks its projector. Ask one question with "
                "llava.eval.run_llava; --no-early-stop goes on all the same, --overwrite starts anew."
            )
        if len(self.failed) >= self.limit and not self.empty + self.loops and isinstance(last, Failure):
            raise UsageError(
                f"none of the first questions could be answered, at last: {last.reason} The same command "
                "asks them again; --no-early-stop goes on all the same."
            )


def describe_failures(failures: Iterable[tuple[Question, str]]) -> str:
    """The questions without an answer, those of one reason in one line."""
    by_reason: dict[str, list[str]] = {}
    for question, reason in failures:
        by_reason.setdefault(reason, []).append(str(question.question_id))
    lines = []
    for reason, names in list(by_reason.items())[:SHOWN_REASONS]:
        more = f" and {len(names) - SHOWN_IDS} more" if len(names) > SHOWN_IDS else ""
        lines.append(f"  {', '.join(names[:SHOWN_IDS])}{more}: {reason}")
    if len(by_reason) > SHOWN_REASONS:
        hidden = [name for names in list(by_reason.values())[SHOWN_REASONS:] for name in names]
        lines.append(f"  and for {len(by_reason) - SHOWN_REASONS} other reasons: {', '.join(hidden)}")
    return "\n".join(lines)
