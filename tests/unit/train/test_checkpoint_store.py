"""A save that fails on one of several ranks; whole saves are tested in tests/faults."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llava.train import checkpoint_store
from llava.train.checkpoint_files import SAVING
from llava.train.checkpoint_store import CheckpointStore
from llava.train.disk_room import SavingError
from llava.train.manifest import Facts, Position
from llava.train.ranks_agree import together


def test_files_go_only_after_all_ranks_have_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ranks count the bytes of what is there: it must not vanish under them."""
    there = []

    def watched(act: Callable[[], object]) -> list[Exception | str]:
        found = together(act)
        there.append((tmp_path / SAVING / "checkpoint-3" / "part").is_file())
        return found

    def broken(folder: Path) -> None:
        (folder / "part").write_text("written")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_store, "together", watched)
    store = CheckpointStore(tmp_path, Facts({}), leads=True)
    with pytest.raises(SavingError, match="checkpoint-3 could not be saved"):
        store.save_checkpoint([broken], Position(3, 3, 0, 3, "none"), limit=None)
    assert there == [False, True, True], "begun, written in part, met once more"
    assert not (tmp_path / SAVING).exists()
