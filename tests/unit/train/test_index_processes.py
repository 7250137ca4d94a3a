"""An index and several processes: a killed build, two at once, workers, an index that is replaced."""

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.train.index_file import CACHE_NAME
from llava.train.sample_index import Sample, SampleIndex
from tests.unit.train.test_index import index_of, kept, mixed_rows, write
from tests.unit.train.test_samples import folder, row

__all__ = ["folder", "kept"]


BUILD = """
import sys, time
from pathlib import Path
from llava.train import samples
samples.KEPT_FROM_BYTES = 0
original = samples.stream_rows
def slow(path, wanted):
    Path(path.parent / f"started-{sys.argv[1]}").touch()
    for row in original(path, wanted):
        time.sleep(float(sys.argv[2]))
        yield row
samples.stream_rows = slow
index = samples.read_samples(Path("train.json"), Path("images"))
print(len(index), index[-1].sample_id)
"""


def building(folder: Path, name: str, pause: float) -> subprocess.Popen:
    """A process that reads the folder's data file, with a pause at each row."""
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, name, str(pause)],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )


def wait_for(condition: object) -> None:
    """Until a condition holds; fails after half a minute."""
    for _ in range(600):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_a_killed_build_leaves_nothing_that_is_trusted(folder: Path) -> None:
    write(folder, [row(id=str(number)) for number in range(50)])
    killed = building(folder, "a", 0.5)
    cache = folder / CACHE_NAME
    wait_for(lambda: (folder / "started-a").exists() and list(cache.glob("*.unfinished")))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert killed.stdout is not None
    killed.stdout.close()
    assert list(cache.glob("*.unfinished")), "it was killed while it wrote"
    assert not list(cache.glob("*.index"))
    assert len(index_of(folder)) == 50
    assert not list(cache.glob("*.unfinished")), "what was left is cleared away"


def test_of_two_processes_one_builds_and_the_other_waits(folder: Path) -> None:
    write(folder, [row(id=str(number)) for number in range(40)])
    first = building(folder, "a", 0.1)
    wait_for(lambda: (folder / "started-a").exists())
    second = building(folder, "b", 0.1)
    answers = [process.communicate()[0] for process in (first, second)]
    assert answers == ["40 39\n"] * 2
    assert not (folder / "started-b").exists(), "the second must not have read the rows"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_it_too(folder: Path, method: str) -> None:
    write(folder, mixed_rows(random.Random(2), 12))
    index = index_of(folder)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(index.__getitem__, range(12)) == list(index)
    assert len(pickle.dumps(index)) < 2000, "the file is handed over by its name"


def test_an_index_that_was_replaced_is_not_taken_for_the_old_one(folder: Path) -> None:
    write(folder, [row(id="one")])
    index = index_of(folder)
    handed = pickle.dumps(index)
    write(folder, [row(id="two")])
    index_of(folder)
    assert index[0].sample_id == "one", "the old pages stay as long as they are used"
    with pytest.raises(UsageError, match="made anew"):
        pickle.loads(handed)


def test_an_index_in_memory_is_handed_over_whole() -> None:
    index = SampleIndex.of([Sample("a", 0, ("x.png",), (("human", "<image>"), ("gpt", "A")))])
    assert pickle.loads(pickle.dumps(index))[0] == index[0]
    assert SampleIndex.of(index) is index
    assert len(SampleIndex.of([])) == 0


def test_locks_that_a_file_system_lacks_are_done_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write(folder, [row()])
    assert len(index_of(folder)) == 1
