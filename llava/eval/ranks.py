"""Several processes (torchrun) that answer one question file: who answers what, and how it becomes one file.

Each rank writes a journal of its own; rank 0 alone writes the answers file, once all of them are complete.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from llava.errors import PARTIAL, UsageError
from llava.eval.answer_rows import answer_row
from llava.eval.answer_run import Answering, RunSettings, end_run, write_answers
from llava.eval.answers import AnswerFile
from llava.eval.journal import lock_of, part_path, read_part, write_part
from llava.eval.outcomes import Outcome
from llava.eval.questions import Question
from llava.eval.run_identity import RunIdentity, differences

PATIENCE = timedelta(days=30)
"""Ranks wait for the slowest; when one dies, torchrun ends the others."""
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """This process's number, how many there are, and its number on this machine."""

    rank: int
    count: int
    local_rank: int

    def gather(self, value: Any) -> list[Any]:
        """What every rank says, in their order."""
        from torch.distributed import all_gather_object

        values: list[Any] = [None] * self.count
        all_gather_object(values, value)
        return values


def ranks_of_launcher() -> Ranks | None:
    """The ranks that torchrun has started; None for a process of its own."""
    if not all(name in os.environ for name in ENVIRONMENT) or int(os.environ["WORLD_SIZE"]) < 2:
        return None
    rank = int(os.environ["RANK"])
    return Ranks(rank, int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", rank)))


@contextmanager
def connected(ranks: Ranks | None) -> Iterator[None]:
    """Connections among the ranks of a launcher, if there are any.

    They are ended in order: left to the interpreter's end, a rank was seen to abort there.
    """
    if ranks is None:
        yield
        return
    from torch.distributed import destroy_process_group, init_process_group

    init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        destroy_process_group()


def device_of_rank() -> dict[str, str]:
    """The loader's keyword for the GPU of this rank; nothing without a launcher or GPUs."""
    ranks = ranks_of_launcher()
    if ranks is None:
        return {}
    import torch

    count = torch.cuda.device_count()
    return {"device": f"cuda:{ranks.local_rank % count}"} if count else {}


def share_questions(questions: Sequence[Question], todo: Sequence[int], count: int) -> list[list[int]]:
    """Some questions, by number, shared out among `count` ranks; those about one picture stay together.

    The largest groups first, each to the rank that has least to do. Shares may be empty.
    """
    groups: dict[object, list[int]] = {}
    for index in todo:
        path = questions[index].image_path
        groups.setdefault(path if path is not None else index, []).append(index)
    shares: list[list[int]] = [[] for _ in range(count)]
    for group in sorted(groups.values(), key=len, reverse=True):
        min(shares, key=len).extend(group)
    return [sorted(share) for share in shares]


class RankPart:
    """A rank's journal, as a target of answers."""

    def __init__(self, file: AnswerFile, ranks: Ranks, model_id: str) -> None:
        self.path = part_path(file.path, ranks.rank, ranks.count)
        self._questions = file.questions
        self._model_id = model_id
        self._new: list[tuple[int, Outcome]] = []

    def add(self, index: int, outcome: Outcome) -> None:
        """Take what came of a question."""
        self._new.append((index, outcome))

    def flush(self) -> None:
        """Put it on the disk."""
        rows = [
            (index, answer_row(self._questions[index], outcome, self._model_id))
            for index, outcome in self._new
        ]
        write_part(self.path, rows)
        self._new = []


def answer_as_rank(
    ranks: Ranks,
    answering: Answering,
    file: AnswerFile,
    identity: RunIdentity,
    settings: RunSettings,
) -> None:
    """Answer this rank's share; rank 0, which alone holds the file's lock, merges in the end.

    All ranks end alike. `UsageError` when their checkpoints differ, or a share is not complete.
    """
    check_alike(ranks.gather(identity.as_row(file.questions)))
    start = file.open(identity, overwrite=settings.overwrite) if ranks.rank == 0 else 0
    start, todo = ranks.gather((start, file.todo() if ranks.rank == 0 else []))[0]
    shares = share_questions(file.questions, todo, ranks.count)
    part = RankPart(file, ranks, identity.model_id)
    with lock_of(part.path):
        shown = replace(settings, show_bar=ranks.rank == 0)
        write_answers(answering, part, file.questions, shares[ranks.rank], shown)
    ranks.gather("done")
    if ranks.rank == 0:
        merge_parts(file, ranks, shares)
    file.failed = ranks.gather(file.failed)[0]
    if ranks.rank == 0:
        end_run(file, start=start)
    elif file.failed:
        raise SystemExit(PARTIAL)


def check_alike(said: Sequence[dict[str, object]]) -> None:
    """`UsageError` when a rank has another checkpoint, other settings or other questions than the first."""
    for rank, row in enumerate(said[1:], start=1):
        told = differences(said[0], row, when=("on rank 0", f"on rank {rank}"))
        if told:
            raise UsageError(
                f"rank {rank} would give other answers than rank 0: {'; '.join(told)}. Give all machines the "
                "same checkpoint, question file and flags."
            )


def merge_parts(file: AnswerFile, ranks: Ranks, shares: Sequence[Sequence[int]]) -> None:
    """Put the journals of all ranks into the file; `UsageError`, with everything kept, unless each holds the
    answers to its share and no others.
    """
    rows, wrong = {}, []
    for rank, share in enumerate(shares):
        path = part_path(file.path, rank, ranks.count)
        found = read_part(path, file.questions) if path.exists() else []
        answered = [index for index, _ in found]
        if sorted(answered) != list(share):
            missing = len(set(share) - set(answered))
            wrong.append(f"{path.name} lacks {missing} of {len(share)} and holds {len(answered)} lines")
        rows |= dict(found)
    if wrong:
        raise UsageError(
            f"the ranks' answers to {file.path} are not complete: {'; '.join(wrong)}. Do all machines see "
            "this folder? The parts are kept; the same command takes them up."
        )
    for index in sorted(rows):
        file.add_row(index, rows[index])
    file.finish()
    for rank in range(ranks.count):
        part_path(file.path, rank, ranks.count).unlink(missing_ok=True)
