"""Saving in one way for checkpoints and for the result: written aside, made durable, described, read back,
renamed; only then is an older one deleted. All ranks call each method together.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from llava.durable import sync_folder
from llava.train.checkpoint_files import (
    RESULT_FOLDER,
    SAVING,
    free_bytes,
    has_manifest,
    promote,
    promote_result,
    rotate,
    sync_tree,
    write_durably,
)
from llava.train.disk_room import SaveSize, SavingError, failed_save_message, is_system_error
from llava.train.manifest import (
    CHECKPOINT,
    COMPLETE_NAME,
    RESULT,
    DamagedError,
    Facts,
    Manifest,
    Position,
    list_files,
    measure_all,
    required_problem,
    verify,
)
from llava.train.ranks_agree import together

logger = logging.getLogger(__name__)

Part = Callable[[Path], object]
"""Writes a part of a checkpoint into a folder."""


class CheckpointStore:
    """The checkpoints of one output folder. `leads`: this process makes folders appear (one per file system).

    `size` may be set to what a save is expected to take, for messages.
    """

    def __init__(self, output_dir: Path, facts: Facts, *, leads: bool) -> None:
        self.output_dir = output_dir
        self.facts = facts
        self.leads = leads
        self.size = SaveSize(0, 0)

    def save_checkpoint(
        self,
        parts: Sequence[Part],
        position: Position,
        *,
        limit: int | None,
        best: Path | None = None,
        resumable: bool = True,
    ) -> Path:
        """Save `checkpoint-STEP` and delete what is beyond `limit`; `SavingError` leaves the older ones."""
        name = f"checkpoint-{position.step}"
        staged, target = self.output_dir / SAVING / name, self.output_dir / name
        self._write(staged, parts)

        def commit() -> None:
            self._describe(staged, CHECKPOINT, position, resumable=resumable)
            promote(staged, target)
            for folder in rotate(self.output_dir, target, limit=limit, best=best):
                logger.info("Deleted %s (--save_total_limit %s)", folder, limit)

        self._on_leader(staged, commit)
        return target

    def save_result(self, parts: Sequence[Part], position: Position) -> None:
        """Save what was trained into the output folder itself."""
        staged = self.output_dir / SAVING / RESULT_FOLDER
        self._write(staged, parts)

        def commit() -> None:
            self._describe(staged, RESULT, position)
            promote_result(staged, self.output_dir)

        self._on_leader(staged, commit)

    def _write(self, staged: Path, parts: Sequence[Part]) -> None:
        """All parts on all ranks; after each of them every rank knows whether it worked everywhere, and none
        waits for one that failed.
        """

        def begin() -> None:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)

        self._on_leader(staged, begin)
        for part in parts:
            self._stop_at(together(lambda part=part: part(staged)), staged)

    def _on_leader(self, staged: Path, act: Callable[[], None]) -> None:
        """Do something where this process leads, and let all ranks know."""
        self._stop_at(together(act if self.leads else lambda: None), staged)

    def _describe(self, staged: Path, kind: str, position: Position, *, resumable: bool = True) -> None:
        """Take the sums of what was written, make it durable, and read it back from the disk."""
        names = list_files(staged)
        manifest = Manifest(kind, position, self.facts, measure_all(staged, names), resumable)
        problem = required_problem(manifest)
        if problem:
            raise SavingError(
                f"saving {staged.name} wrote {problem}; with several machines, --output_dir must be on a "
                "file system that all of them share, or use --save_on_each_node True."
            )
        sync_tree(staged, names)
        write_durably(staged / COMPLETE_NAME, manifest.text())
        sync_folder(staged)
        try:
            verify(staged)
        except DamagedError as error:
            raise SavingError(
                f"{staged.name} does not read back as it was written ({error}); the disk of "
                f"{self.output_dir} is failing, name a folder on another one."
            ) from None

    def _stop_at(self, errors: Sequence[Exception | str], staged: Path) -> None:
        """Remove what was written and raise, if anything went wrong anywhere."""
        if not errors:
            return
        free = free_bytes(self.output_dir)
        written = sum(file.stat().st_size for file in staged.rglob("*") if file.is_file())
        expected = self.size.result if staged.name == RESULT_FOLDER else self.size.checkpoint
        together(lambda: None)  # all ranks have counted before the files go
        if self.leads and not has_manifest(staged):  # whole files are put in place by the next start
            shutil.rmtree(staged.parent, ignore_errors=True)
        first = errors[0]
        if any(map(is_system_error, errors)):
            text = failed_save_message(
                staged.name, self.output_dir, errors, needed=max(expected, written), free=free
            )
            raise SavingError(text) from None
        if isinstance(first, Exception):
            raise first
        raise SavingError(f"saving {staged.name} in {self.output_dir} failed: {first}.")
