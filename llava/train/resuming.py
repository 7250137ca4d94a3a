"""Where a run goes on: the newest checkpoint that verifies and was made by the same run.

A damaged one is never used, a foreign one only with --force_resume True, and when there are checkpoints but
none that can be used, that is an error and no fresh start.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from llava.errors import UsageError
from llava.file_lock import FileLock
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.checkpoint_files import checkpoint_folders, step_in_name, tidy
from llava.train.fingerprint import differences, facts_of, ranks_of
from llava.train.manifest import COMPLETE_NAME, RESULT, DamagedError, Facts, Manifest, read_manifest, verify
from llava.train.ranks_agree import on_first_rank
from llava.train.resume_files import refuse_pickled_code
from llava.train.sample_index import Sample
from llava.train.summary import planned_steps

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Hold a run's output folder: the first rank locks it and clears what an interrupted save left.

    `UsageError` on every rank when another run holds it, or it holds something else than this run.
    """
    lock, is_new = lock_of(folder), not folder.exists() and int(os.environ.get("WORLD_SIZE", "1")) == 1
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output_dir {folder} is a file; name a folder.")

    def enter() -> None:
        take(folder, lock)
        tidy(folder)
        check_output_folder(folder)

    try:
        on_first_rank(enter)
        yield
    finally:
        lock.release()  # on the first rank; the others do not hold it
        if is_new:  # with several ranks another may be about to write
            with suppress(OSError):
                folder.rmdir()  # a run that was refused before it wrote anything leaves nothing


def lock_of(folder: Path) -> FileLock:
    """The right to train into an output folder."""
    in_use = f"--output_dir {folder} is in use by a run"
    return FileLock(folder / LOCK_NAME, in_use=in_use, remedy="wait for it, stop it, or name another")


def take(folder: Path, lock: FileLock) -> None:
    """Make an output folder where there is none, and lock it; `UsageError` when either cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise UsageError(
            f"--output_dir {folder} cannot be written ({error.strerror or error}); name another folder "
            "or change its permissions."
        ) from None


def check_output_folder(folder: Path) -> None:
    """`UsageError` when an output folder holds a result or runs that are not this package's checkpoints."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"--output_dir {folder} is a file; name a folder.")
    if checkpoint_folders(folder) or (folder / COMPLETE_NAME).is_file():
        return
    refuse_result(folder)
    foreign = [entry.name for entry in folder.iterdir() if (entry / "config.json").is_file()]
    if foreign:
        raise UsageError(
            f"--output_dir {folder} holds other runs ({', '.join(foreign[:3])}); name another folder."
        )


def refuse_result(folder: Path) -> None:
    """`UsageError` when a folder without checkpoints to go on from holds a result."""
    if (folder / COMPLETE_NAME).is_file() or any(folder.glob("*.safetensors")):
        raise UsageError(
            f"--output_dir {folder} already holds a finished run; name another folder or remove it."
        )


@dataclass(frozen=True)
class Origin:
    """Where a run begins: a checkpoint or None, and what its own checkpoints will carry."""

    checkpoint: Path | None
    facts: Facts


def find_origin(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: TrainingArguments,
    samples: Sequence[Sample],
    *,
    num_trained: int,
) -> Origin | None:
    """Where the run goes on, the same on all ranks; None when its result is already there, whole.

    `num_trained`: how many of the samples are not held out.

    `UsageError` as `find_resume` says, and for a folder that holds another run's result.
    """
    folder = Path(training_args.output_dir)

    def find() -> Origin | None:
        facts = facts_of(model_args, data_args, training_args, samples)
        steps = None if training_args.early_stopping_patience else planned_steps(training_args, num_trained)
        if is_finished(folder, facts, steps=steps):
            logger.info("%s holds the whole result of this run; there is nothing left to do.", folder)
            return None
        checkpoint = find_resume(folder, facts, force=training_args.force_resume)
        if checkpoint is None:
            refuse_result(folder)
        else:
            refuse_pickled_code(checkpoint)
        return Origin(checkpoint, facts)

    origin = on_first_rank(find)
    if origin is None:
        return None
    return Origin(origin.checkpoint, replace(origin.facts, ranks=ranks_of(training_args)))


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that verifies, and in what it differs from this run."""

    folder: Path
    manifest: Manifest
    differs: list[str]


def find_resume(folder: Path, facts: Facts, *, force: bool) -> Path | None:
    """The checkpoint to go on from, None for a fresh start; what was skipped is told in one warning.

    Raises `UsageError` when checkpoints are there but none can be used, with the list of differences where
    they are whole but of a run with other data or flags. `force` takes the newest whole one all the same.
    """
    skipped: list[str] = []
    others: list[Candidate] = []
    chosen = None
    for entry in checkpoint_folders(folder):
        try:
            candidate = examine(entry, facts)
        except DamagedError as error:
            skipped.append(f"{entry.name}: {error}")
            continue
        if force or not candidate.differs:
            chosen = candidate
            break
        others.append(candidate)
    if chosen is None:
        refuse(folder, skipped, others)
        return None
    skipped += [f"{other.folder.name}: of another run ({'; '.join(other.differs)})" for other in others]
    tell(chosen, skipped, facts)
    return chosen.folder


def examine(folder: Path, facts: Facts) -> Candidate:
    """A checkpoint, compared with this run; `DamagedError` when it cannot be used by any."""
    manifest = verify(folder)
    if manifest.position.step != step_in_name(folder):
        raise DamagedError(f"it holds step {manifest.position.step}; the folder was renamed")
    if not manifest.resumable:
        raise DamagedError("it holds the model only (--save_only_model); the optimiser's state is not there")
    return Candidate(folder, manifest, differences(manifest.facts.fingerprint, facts.fingerprint))


def refuse(folder: Path, skipped: Sequence[str], others: Sequence[Candidate]) -> None:
    """`UsageError` if there are checkpoints that cannot be used."""
    if others:
        newest = others[0]
        raise UsageError(
            f"{newest.folder} is of a run with other data or flags, and going on would mix the two:"
            f"{lines(newest.differs)}\nGive what was given then, name another --output_dir for another run, "
            "or add --force_resume True to go on all the same."
        )
    if skipped:
        raise UsageError(
            f"--output_dir {folder} holds checkpoints, but none that can be gone on from:{lines(skipped)}\n"
            "Remove them for a fresh start, or name another folder."
        )


def tell(chosen: Candidate, skipped: Sequence[str], facts: Facts) -> None:
    """Warn of what was skipped, of forced differences, and of other packages or ranks."""
    if skipped:
        logger.warning("Going on from %s; not used:%s", chosen.folder.name, lines(skipped))
    if chosen.differs:
        logger.warning(
            "--force_resume: %s is of a run with other data or flags (its rates, their schedule and the "
            "optimiser's other settings go on as they were saved):%s",
            chosen.folder.name,
            lines(chosen.differs),
        )
    then = chosen.manifest.facts
    packages = differences(then.versions, facts.versions)
    if packages:
        logger.warning("%s was written by other packages: %s", chosen.folder.name, "; ".join(packages))
    if then.world_size != facts.world_size:
        logger.warning(
            "%s was written by %d ranks, now there are %d: samples come in the same order, dropout draws "
            "other numbers.",
            chosen.folder.name,
            then.world_size,
            facts.world_size,
        )


def lines(entries: Sequence[str]) -> str:
    """Entries on lines of their own."""
    return "".join(f"\n  {entry}" for entry in entries)


def is_finished(folder: Path, facts: Facts, *, steps: int | None) -> bool:
    """Whether an output folder holds the whole result of this very run, after `steps` steps (None: any)."""
    try:
        manifest = read_manifest(folder)
        if manifest.kind != RESULT or differences(manifest.facts.fingerprint, facts.fingerprint):
            return False
        return verify(folder).position.step == steps or steps is None
    except DamagedError:
        return False


def step_of(checkpoint: Path | None) -> int:
    """The step after which a `checkpoint-N` was written; 0 for a fresh start."""
    return 0 if checkpoint is None else step_in_name(checkpoint) or 0
