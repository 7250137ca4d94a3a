"""Damaged checkpoints: each file missing, empty, cut, longer, with a flipped bit or from another run; a wrong
number of ranks. The newest that verifies is used, what was skipped is named, nothing starts anew in silence.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.train.manifest import COMPLETE_NAME, read_manifest, sealed
from llava.train.resuming import find_resume
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.trainings import KINDS, Trainings, sums

LONG_LIMIT = ("--save_total_limit", "3")


def half(file: Path) -> None:
    """Cut a file in the middle."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flip(file: Path) -> None:
    """Turn one bit over, in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "half": half,
    "one byte more": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "one bit": flip,
}


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of all files of the checkpoints."""
    return {str(file): file.stat().st_size for file in folder.glob("checkpoint-*/*")}


@pytest.fixture(scope="module", params=KINDS)
def stopped(request: pytest.FixtureRequest, trainings: Trainings) -> tuple[str, Path]:
    """A kind, and the folder of its run that was killed with checkpoints 2, 4 and 6."""
    folder = trainings.place(f"stopped {request.param}")
    trainings.run(folder, request.param, *LONG_LIMIT, kill_at_step=7).was_killed()
    assert len(list(folder.glob("checkpoint-*"))) == 3
    return request.param, folder


@pytest.fixture
def copied(stopped: tuple[str, Path], trainings: Trainings) -> tuple[str, Path]:
    """A copy to damage."""
    kind, folder = stopped
    copy = trainings.place("damaged")
    shutil.copytree(folder, copy)
    return kind, copy


def test_every_file_damaged_in_every_way(
    stopped: tuple[str, Path], trainings: Trainings, fault_log: FaultLog, caplog: pytest.LogCaptureFixture
) -> None:
    kind, folder = stopped
    facts = read_manifest(folder / "checkpoint-6").facts
    names = sorted(file.name for file in (folder / "checkpoint-6").iterdir())
    assert COMPLETE_NAME in names
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} < set(names)
    copy = trainings.place("damaged")
    count = 0
    for name in names:
        for how, damage in DAMAGE.items():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            damage(copy / "checkpoint-6" / name)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                assert find_resume(copy, facts, force=False) == copy / "checkpoint-4", (name, how)
            (record,) = caplog.records
            assert "checkpoint-6" in record.getMessage(), (name, how)
            assert name in record.getMessage(), (name, how)
            count += 1
    fault_log(f"checkpoint damaged, {kind}", "the one before used and named", SURVIVED, count)


@pytest.mark.parametrize("name", ["rng_state.pth", "optimizer.pt", "trainer_state.json"])
def test_goes_on_from_the_one_before(
    name: str, copied: tuple[str, Path], trainings: Trainings, fault_log: FaultLog
) -> None:
    """To the end: the weights are those of a run that nothing disturbed."""
    kind, folder = copied
    flip(folder / "checkpoint-6" / name)
    outcome = trainings.run(folder, kind, *LONG_LIMIT).ended_well()
    assert "going on from checkpoint-4" in outcome.log
    assert f"{name} changed since saving" in outcome.log
    assert sums(folder, kind) == trainings.undisturbed(kind, *LONG_LIMIT)
    fault_log(f"one bit of {name} flipped, {kind}", "the one before used, same weights", SURVIVED)


def test_files_of_another_run_are_damage(
    copied: tuple[str, Path], trainings: Trainings, fault_log: FaultLog
) -> None:
    """Same names and sizes, other numbers."""
    kind, folder = copied
    other = trainings.place("other seed")
    trainings.run(other, kind, "--seed", "7", kill_at_step=7).was_killed()
    names = sorted(file.name for file in (folder / "checkpoint-6").iterdir())
    for name in names:
        if (other / "checkpoint-6" / name).read_bytes() != (folder / "checkpoint-6" / name).read_bytes():
            shutil.copy(other / "checkpoint-6" / name, folder / "checkpoint-6" / name)
            break
    facts = read_manifest(folder / "checkpoint-4").facts
    assert find_resume(folder, facts, force=False) == folder / "checkpoint-4"
    shutil.rmtree(folder / "checkpoint-6")
    shutil.copytree(other / "checkpoint-6", folder / "checkpoint-6")
    outcome = trainings.run(folder, kind, *LONG_LIMIT).ended_well()
    assert "checkpoint-6: of another run (seed: 7 then, 42 now)" in outcome.log
    assert sums(folder, kind) == trainings.undisturbed(kind, *LONG_LIMIT)
    fault_log(f"a file, and a checkpoint, of another run, {kind}", "the one before used", SURVIVED, 2)


def test_wrong_ranks_or_step_in_the_manifest(
    copied: tuple[str, Path], fault_log: FaultLog, caplog: pytest.LogCaptureFixture
) -> None:
    kind, folder = copied
    facts = read_manifest(folder / "checkpoint-6").facts
    newest = folder / "checkpoint-6" / COMPLETE_NAME
    values = json.loads(newest.read_text())
    for change, said in (
        ({"facts": values["facts"] | {"world_size": 2, "ranks": [0, 1]}}, "names no rng_state_0.pth"),
        ({"position": values["position"] | {"step": 8}}, "holds step 8"),
        ({"format": 99}, "no manifest of format 1"),
        ({"files": {}}, "no file of weights"),
    ):
        newest.write_text(sealed(values | change))
        caplog.clear()
        assert find_resume(folder, facts, force=False) == folder / "checkpoint-4"
        assert said in caplog.text
    fault_log(f"manifest of other ranks, step or format, {kind}", "the one before used", SURVIVED, 4)


def test_no_fresh_start_when_all_are_damaged(
    copied: tuple[str, Path], trainings: Trainings, fault_log: FaultLog
) -> None:
    kind, folder = copied
    flip(folder / "checkpoint-6" / "optimizer.pt")
    (folder / "checkpoint-4" / COMPLETE_NAME).unlink()
    half(folder / "checkpoint-2" / "scheduler.pt")
    before = sizes(folder)
    message = trainings.run(folder, kind, *LONG_LIMIT).was_refused()
    for step, reason in (
        (6, "optimizer.pt changed"),
        (4, f"has no {COMPLETE_NAME}"),
        (2, "scheduler.pt has"),
    ):
        assert f"checkpoint-{step}: " in message
        assert reason in message
    assert sizes(folder) == before
    fault_log(f"all checkpoints damaged, {kind}", "refused, each named, nothing touched", REFUSED, 3)


def test_a_checkpoint_without_optimizer_is_named(trainings: Trainings) -> None:
    folder = trainings.place("only model")
    flags = ("--save_only_model", "True")
    trainings.run(folder, "lora", *flags, kill_at_step=3).was_killed()
    assert "model only (--save_only_model)" in trainings.run(folder, "lora", *flags).was_refused()


def test_rotation_spares_the_best_the_new_and_what_is_damaged(tmp_path: Path) -> None:
    from llava.train import checkpoint_files
    from tests.faults.manifests import write_checkpoint

    for step in (2, 4, 6, 8):
        write_checkpoint(tmp_path / f"checkpoint-{step}", step)
    (tmp_path / "checkpoint-4" / COMPLETE_NAME).unlink()
    write_checkpoint(tmp_path / "checkpoint-10", 10)
    newest = tmp_path / "checkpoint-8"
    assert checkpoint_files.rotate(tmp_path, newest, limit=None, best=None) == []
    assert checkpoint_files.rotate(tmp_path, newest, limit=1, best=tmp_path / "checkpoint-2") == [
        tmp_path / "checkpoint-6"
    ]
    left = sorted(entry.name for entry in tmp_path.iterdir())
    assert left == ["checkpoint-10", "checkpoint-2", "checkpoint-4", "checkpoint-8"]


def test_all_problems_without_a_run(tmp_path: Path) -> None:
    """A folder with checkpoints of other programs only is an error."""
    from llava.train.manifest import Facts

    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"checkpoint-3: it has no complete\.json"):
        find_resume(tmp_path, Facts({}), force=True)
