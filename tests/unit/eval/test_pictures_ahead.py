"""Pictures ahead: a bounded number, in order, errors as they are."""

import threading

import pytest

from llava.errors import UsageError
from llava.eval.pictures_ahead import PicturesAhead

NAMES = [f"p{number}" for number in range(9)]


def test_pictures_are_loaded_ahead_but_not_too_far() -> None:
    begun: list[str] = []
    ready = threading.Semaphore(0)

    def load(name: str) -> str:
        begun.append(name)
        ready.release()
        return name.upper()

    with PicturesAhead(load, workers=1, depth=3) as pictures:
        pictures.expect(NAMES)
        for _ in range(3):
            assert ready.acquire(timeout=10)
        assert not ready.acquire(timeout=0.05), "no more than `depth` wait"
        assert begun == NAMES[:3]
        assert [pictures.take(name) for name in NAMES] == [name.upper() for name in NAMES]
        assert begun == NAMES, "each once, in order"


def test_loading_and_taking_run_side_by_side() -> None:
    """Two pictures that wait for each other are both loaded."""
    both = threading.Barrier(2, timeout=10)

    with PicturesAhead(lambda name: both.wait() >= 0, workers=2) as pictures:
        pictures.expect(["a", "b"])
        assert pictures.take("a")
        assert pictures.take("b")


def test_another_order_and_unexpected_names() -> None:
    begun: list[str] = []

    def load(name: str) -> str:
        begun.append(name)
        return name

    with PicturesAhead(load, workers=2, depth=2) as pictures:
        pictures.expect(NAMES)
        assert [pictures.take(name) for name in reversed(NAMES)] == NAMES[::-1]
        assert sorted(begun) == NAMES, "each once, though in another order than expected"
        pictures.expect(["x", "y"])
        assert [pictures.take(name) for name in ("z", "y", "x", "x")] == ["z", "y", "x", "x"]
        assert sorted(begun[9:]) == ["x", "x", "y", "z"], "what was taken is not kept"


def test_an_error_is_raised_for_its_picture_only() -> None:
    def load(name: str) -> str:
        if name == "p1":
            raise UsageError("the picture p1 is damaged; replace the file.")
        return name

    with PicturesAhead(load) as pictures:
        pictures.expect(NAMES)
        assert pictures.take("p0") == "p0"
        with pytest.raises(UsageError, match=r"^the picture p1 is damaged; replace the file\.$"):
            pictures.take("p1")
        assert pictures.take("p2") == "p2"
