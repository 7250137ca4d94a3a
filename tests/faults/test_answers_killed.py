"""Answers and crashes: kill -9 at any answer or write, a line torn at every byte, a disk that fills up, two
writers. Nothing is lost, doubled or changed, and no more than a batch is computed again.
"""

import random
import resource
import subprocess
import time
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.eval.answering import chunk_of
from llava.eval.answers import AnswerFile
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.quick_answers import (
    IDENTITY,
    KILLED,
    QuickEngine,
    Tally,
    answer,
    end_of,
    in_child,
    kill_at,
    make_questions,
    rows_of,
    whole_lines,
)

SEEDS, COUNT = 50, 40


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_killed_at_a_random_answer(batch_size: int, shards: int, tmp_path: Path, fault_log: FaultLog) -> None:
    """Every shard of every run is killed, all shards at the same time, and started again."""
    tally, kills = Tally(), 0
    for seed in range(SEEDS):
        questions, rng = make_questions(COUNT, seed), random.Random(seed)
        parts = [list(chunk_of(questions, shards, part)) for part in range(shards)]
        paths = [tmp_path / f"{seed}_{part}.jsonl" for part in range(shards)]
        engines = [QuickEngine(batch_size, tmp_path / f"{seed}_{part}.log") for part in range(shards)]
        children = []
        for path, part, engine in zip(paths, parts, engines, strict=True):

            def die(
                path: Path = path, part: list = part, engine: QuickEngine = engine, seed: int = rng.random()
            ) -> None:
                kill_at(engine, random.Random(seed), len(part))
                answer(path, part, engine)

            children.append(in_child(die))
        killed = [end_of(child) == KILLED for child in children]
        kills += sum(killed)
        merged = []
        for path, part, engine in zip(paths, parts, engines, strict=True):
            before = whole_lines(path)
            answer(path, part, engine)
            tally.keep(before, whole_lines(path))
            tally.recompute(engine.num_computed() - len(part))
            merged += rows_of(path)
            assert sorted(file.name for file in tmp_path.glob(f"{path.name}.*")) == [f"{path.name}.run.json"]
        tally.compare(merged, questions)
    fault_log(f"E1 kill -9, batch {batch_size}, {shards} shard(s)", str(tally), SURVIVED, count=kills)
    assert kills > SEEDS * shards * 0.75, "most runs must be hit, the others end before"
    tally.check(allowed=batch_size)


def test_last_line_torn_at_every_byte(tmp_path: Path, fault_log: FaultLog) -> None:
    questions, path, log = make_questions(12), tmp_path / "a.jsonl", tmp_path / "log"
    answer(path, questions, QuickEngine(4, log))
    lines = whole_lines(path)
    tally, whole = Tally(), b"".join(lines)
    for cut in range(len(whole) - len(lines[-1]), len(whole)):
        path.write_bytes(whole[:cut])
        log.unlink(missing_ok=True)
        answer(path, questions, QuickEngine(4, log))
        tally.keep(lines[:-1], whole_lines(path)[:-1])
        tally.compare(rows_of(path), questions)
        tally.recompute(QuickEngine(4, log).num_computed())
    assert len(lines[-1]) > 100
    assert tally.most_recomputed == 1, "the torn line alone"
    fault_log("E2 last line torn at every byte", str(tally), SURVIVED, count=len(lines[-1]))
    tally.check(allowed=1)


def test_journal_torn(tmp_path: Path, fault_log: FaultLog) -> None:
    """The last line of what waits beside the file."""
    questions, path, log = make_questions(12), tmp_path / "a.jsonl", tmp_path / "log"
    with AnswerFile(path, questions) as file:
        file.open(IDENTITY)
        for index in (0, 4, 7):
            file.add(index, f"early {index}")
            file.flush()
    part = tmp_path / "a.jsonl.part"
    whole, kept = part.read_bytes(), path.read_bytes()
    identity = (tmp_path / "a.jsonl.run.json").read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    cuts = range(len(whole) - last, len(whole), 4)
    for cut in cuts:
        path.write_bytes(kept)
        part.write_bytes(whole[:cut])
        log.unlink(missing_ok=True)
        answer(path, questions, QuickEngine(4, log))
        texts = [row["text"] for row in rows_of(path)]
        assert texts[0] == "early 0"
        assert texts[4] == "early 4"
        assert texts[7] != "early 7", "the torn one is asked again"
        assert QuickEngine(4, log).num_computed() == 10
        assert (tmp_path / "a.jsonl.run.json").read_bytes() == identity
    fault_log("E2 journal torn", "earlier lines used, the torn one asked again", SURVIVED, len(cuts))


def limited(path: Path, log: Path, size: int) -> int:
    """Answer in a process whose files may have so many bytes at most; its exit code."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        answer(path, make_questions(40), QuickEngine(8, log))

    return end_of(in_child(work))


def test_disk_full(tmp_path: Path, fault_log: FaultLog) -> None:
    """At many sizes; the file is one that can be parsed at once, not only after a rerun."""
    questions, tally, faults = make_questions(40), Tally(), 0
    answer(tmp_path / "whole.jsonl", questions, QuickEngine(8, tmp_path / "whole.log"))
    size = (tmp_path / "whole.jsonl").stat().st_size
    least = (tmp_path / "whole.jsonl.run.json").stat().st_size
    for limit in range(least, size, size // 40):
        path, log = tmp_path / f"{limit}.jsonl", tmp_path / f"{limit}.log"
        assert limited(path, log, limit) == 2, "a message, no traceback"
        faults += 1
        before = path.read_bytes()
        assert before == b"".join(whole_lines(path)), "no torn line is left"
        assert limited(path, log, limit) == 2, "still full"
        assert path.read_bytes().startswith(before)
        computed = QuickEngine(8, log).num_computed()
        answer(path, questions, QuickEngine(8, log))
        tally.keep(whole_lines(path)[: before.count(b"\n")], before.splitlines(keepends=True))
        tally.compare(rows_of(path), questions)
        again = QuickEngine(8, log).num_computed() - len(questions)
        tally.recompute(again // 2)  # two faults
        assert computed > 0
    fault_log("E3 disk full (RLIMIT_FSIZE)", str(tally), SURVIVED, count=2 * faults)
    tally.check(allowed=8)


def test_small_disk(tmp_path: Path, fault_log: FaultLog) -> None:
    """A real file system without room: its own error, and a message that says what to do."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted")
    try:
        questions, path = make_questions(200), disk / "a.jsonl"
        with pytest.raises(UsageError, match=r"No space left on device.*make room"):
            answer(path, questions, QuickEngine(8, tmp_path / "log"))
        lines = whole_lines(path)
        assert lines
        assert path.read_bytes() == b"".join(lines)
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        answer(path, questions, QuickEngine(8, tmp_path / "log"))
        tally = Tally()
        tally.keep(lines, whole_lines(path))
        tally.compare(rows_of(path), questions)
        tally.recompute(QuickEngine(8, tmp_path / "log").num_computed() - 200)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    fault_log("E3 disk full (small tmpfs)", str(tally), SURVIVED)
    tally.check(allowed=8)


def test_two_writers(tmp_path: Path, fault_log: FaultLog) -> None:
    """The second is refused at once, and the first is not disturbed."""
    questions, path = make_questions(40), tmp_path / "a.jsonl"
    slow = QuickEngine(1, tmp_path / "log", before_batch=lambda count: time.sleep(0.02))
    first = in_child(lambda: answer(path, questions, slow))
    while not path.exists() or path.stat().st_size == 0:
        time.sleep(0.01)
    refused, longest = 0, 0.0
    for _ in range(10):
        start = time.monotonic()
        with pytest.raises(UsageError, match=rf"written by another run \(process {first} on"):
            answer(path, questions, QuickEngine(8, tmp_path / "other"))
        longest = max(longest, time.monotonic() - start)
        refused += 1
    assert end_of(first) == 0
    assert not (tmp_path / "other").exists(), "the second has computed nothing"
    tally = Tally()
    tally.compare(rows_of(path), questions)
    fault_log("E6 second writer", f"told who holds the file within {longest:.2f} s", REFUSED, count=refused)
    tally.check(allowed=0)
    assert longest < 1
