"""Several ranks: shares by picture, one file in the end, and everything kept when one of them fails.

The ranks are threads here, which speak through a barrier; `tests/e2e` starts them by torchrun.
"""

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.eval.answer_run import RunSettings
from llava.eval.answers import AnswerFile
from llava.eval.journal import part_path, write_part
from llava.eval.outcomes import Failure, Outcome
from llava.eval.questions import Question
from llava.eval.ranks import Ranks, answer_as_rank, merge_parts, ranks_of_launcher, share_questions
from llava.eval.run_identity import RunIdentity

IDENTITY = RunIdentity("model", {"seed": 0})
SETTINGS = RunSettings(show_bar=False)


def make_questions(count: int, pictures: int) -> list[Question]:
    """Questions about so many pictures and none."""
    rng = random.Random(count)
    names = [rng.choice([None, *(f"{number}.png" for number in range(pictures))]) for _ in range(count)]
    return [Question(number, f"What is {number}?", name, name, None) for number, name in enumerate(names)]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 50])
@pytest.mark.parametrize("pictures", [1, 7])
def test_shares_hold_each_question_once_and_keep_pictures_together(count: int, pictures: int) -> None:
    questions = make_questions(40, pictures)
    todo = [index for index in range(40) if index % 3]
    shares = share_questions(questions, todo, count)
    assert len(shares) == count
    assert sorted(index for share in shares for index in share) == todo
    homes = {(questions[index].image_path, number) for number, share in enumerate(shares) for index in share}
    places = Counter(picture for picture, _ in homes if picture is not None)
    assert set(places.values()) == {1}
    assert all(share == sorted(share) for share in shares)
    biggest = max(
        Counter(questions[index].image_path for index in todo if questions[index].image_path).values()
    )
    assert max(map(len, shares)) <= max(biggest, -(-len(todo) // count) + biggest)
    assert share_questions(questions, [], count) == [[]] * count


@dataclass
class Meeting:
    """Where threads that play ranks say something to all."""

    barrier: threading.Barrier
    said: dict[int, object] = field(default_factory=dict)


class ThreadRanks(Ranks):
    """A rank in a thread."""

    def __init__(self, rank: int, count: int, meeting: Meeting) -> None:
        super().__init__(rank, count, rank)
        object.__setattr__(self, "meeting", meeting)

    def gather(self, value: object) -> list:
        meeting: Meeting = self.meeting  # type: ignore[attr-defined]
        meeting.said[self.rank] = value
        meeting.barrier.wait(20)
        values = [meeting.said[rank] for rank in range(self.count)]
        meeting.barrier.wait(20)
        return values


@dataclass
class Engine:
    """Answers by twos; dies before answer number `dies_at`, and cannot answer `unable`."""

    dies_at: int | None = None
    unable: frozenset[object] = frozenset()
    answered: list[object] = field(default_factory=list)

    def batches(self, questions: Sequence[Question]) -> Iterator[list[tuple[int, Outcome]]]:
        order = list(reversed(range(len(questions))))
        for start in range(0, len(order), 2):
            if self.dies_at is not None and start >= self.dies_at:
                raise RuntimeError("died")
            batch = order[start : start + 2]
            self.answered += [questions[index].question_id for index in batch]
            yield [(index, self._answer(questions[index])) for index in batch]

    def _answer(self, question: Question) -> Outcome:
        return (
            Failure("no picture") if question.question_id in self.unable else f"It is {question.question_id}."
        )


def run(
    path: Path, questions: list[Question], engines: list[Engine], **identities: RunIdentity
) -> list[object]:
    """How each rank ended: None, an exit code or an error."""
    meeting = Meeting(threading.Barrier(len(engines)))
    ends: list[object] = [None] * len(engines)

    def work(rank: int) -> None:
        ranks, file = ThreadRanks(rank, len(engines), meeting), AnswerFile(path, questions)
        identity = identities.get(f"rank{rank}", IDENTITY)
        try:
            if rank == 0:
                with file:
                    answer_as_rank(ranks, engines[rank], file, identity, SETTINGS)
            else:
                answer_as_rank(ranks, engines[rank], file, identity, SETTINGS)
        except SystemExit as stop:
            ends[rank] = stop.code
        except Exception as error:  # torchrun ends the others
            meeting.barrier.abort()
            ends[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def texts(path: Path) -> list[str]:
    """The answers in a file."""
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def names(folder: Path) -> set[str]:
    """What lies in a folder."""
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize(("count", "ranks"), [(30, 2), (30, 3), (2, 4), (1, 2)])
def test_ranks_give_one_file(count: int, ranks: int, tmp_path: Path) -> None:
    path, questions = tmp_path / "a.jsonl", make_questions(count, 5)
    engines = [Engine() for _ in range(ranks)]
    assert run(path, questions, engines) == [None] * ranks
    assert texts(path) == [f"It is {number}." for number in range(count)]
    assert sorted(name for engine in engines for name in engine.answered) == list(range(count))
    assert names(tmp_path) == {"a.jsonl", "a.jsonl.run.json"}
    assert run(path, questions, [Engine(dies_at=0) for _ in range(ranks)]) == [None] * ranks, "nothing to do"


def test_a_dead_rank_leaves_all_parts_and_any_number_goes_on(tmp_path: Path) -> None:
    path, questions = tmp_path / "a.jsonl", make_questions(40, 6)
    first = [Engine(), Engine(dies_at=4), Engine()]
    ends = run(path, questions, first)
    assert isinstance(ends[1], RuntimeError)
    assert all(isinstance(end, Exception) for end in ends)
    assert path.read_bytes() == b"", "nothing is merged"
    assert names(tmp_path) >= {f"a.jsonl.part-{rank}-of-3" for rank in range(3)}
    with (tmp_path / "a.jsonl.part-1-of-3").open("ab") as part:
        part.write(b'{"index": 3, "row": {"quest')
    again = [Engine(), Engine()]
    assert run(path, questions, again) == [None, None]
    assert texts(path) == [f"It is {number}." for number in range(40)]
    done = [name for engine in first for name in engine.answered]
    assert sorted(done + [name for engine in again for name in engine.answered]) == list(range(40))
    assert 4 <= len(done) < 40
    assert names(tmp_path) == {"a.jsonl", "a.jsonl.run.json"}


def test_ranks_take_up_the_file_of_one_process_and_the_reverse(tmp_path: Path) -> None:
    path, questions = tmp_path / "a.jsonl", make_questions(12, 3)
    with AnswerFile(path, questions) as file:
        file.open(IDENTITY)
        for number in (0, 1, 8):
            file.add(number, f"It is {number}.")
            file.flush()
    before = path.read_bytes()
    engines = [Engine(), Engine(dies_at=2)]
    run(path, questions, engines)
    asked = [name for engine in engines for name in engine.answered]
    assert not {0, 1, 8} & set(asked)
    with AnswerFile(path, questions) as file:
        assert file.open(IDENTITY) == 3 + len(asked)
    assert path.read_bytes().startswith(before)


def test_failed_questions_end_all_ranks_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, questions = tmp_path / "a.jsonl", make_questions(12, 3)
    engines = [Engine(unable=frozenset({3, 5})) for _ in range(3)]
    assert run(path, questions, engines) == [3, 3, 3]
    assert texts(path)[3] == texts(path)[5] == ""
    assert capsys.readouterr().err.count("2 of 12 questions (16.7%) could not be answered") == 1
    engines = [Engine(), Engine()]
    assert run(path, questions, engines) == [None, None]
    assert sorted(name for engine in engines for name in engine.answered) == [3, 5]
    assert texts(path) == [f"It is {number}." for number in range(12)]


def test_ranks_with_another_checkpoint_are_refused(tmp_path: Path) -> None:
    path, questions = tmp_path / "a.jsonl", make_questions(12, 3)
    ends = run(path, questions, [Engine(), Engine()], rank1=RunIdentity("model", {"seed": 1}))
    told = [str(end) for end in ends if isinstance(end, UsageError)]
    assert told, "the first to see it ends the others"
    assert "rank 1 would give other answers than rank 0: seed: on rank 0 0, on rank 1 1" in told[0]
    assert not path.exists()


@pytest.mark.parametrize("trouble", ["missing", "short", "foreign", "twice"])
def test_incomplete_parts_are_not_merged(trouble: str, tmp_path: Path) -> None:
    """As on machines that do not see one folder, or where a file was copied over another."""
    path, questions = tmp_path / "a.jsonl", make_questions(4, 0)
    rows = [
        {"question_id": number, "prompt": f"What is {number}?", "text": "x", "metadata": {}}
        for number in range(4)
    ]
    shares = [[0, 2], [1, 3]]
    wrong = {"missing": [], "short": [1], "foreign": [1, 3, 2], "twice": [1, 3, 3]}[trouble]
    with AnswerFile(path, questions) as file:
        file.open(IDENTITY)
        write_part(part_path(path, 0, 2), [(index, rows[index]) for index in shares[0]])
        write_part(part_path(path, 1, 2), [(index, rows[index]) for index in wrong])
        with pytest.raises(UsageError, match=r"not complete: a\.jsonl\.part-1-of-2 .*The parts are kept"):
            merge_parts(file, Ranks(0, 2, 0), shares)
    assert path.read_bytes() == b""
    assert part_path(path, 0, 2).exists()


def test_a_launcher_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert ranks_of_launcher() is None, "others than torchrun set this too"
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert ranks_of_launcher() == Ranks(3, 4, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert ranks_of_launcher() is None
