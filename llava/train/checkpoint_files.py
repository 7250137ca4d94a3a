"""Checkpoint folders, which no power cut or kill leaves half done: made durable, renamed, then removed.

    OUTPUT_DIR/.saving/NAME      is being written; counts for nothing
    OUTPUT_DIR/NAME              appears whole, by one rename
    OUTPUT_DIR/.removing/NAME    is being deleted; counts for nothing

Free of torch.
"""

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from llava.durable import sync_file, sync_folder
from llava.train.manifest import COMPLETE_NAME, DamagedError, measure, read_manifest, verify

logger = logging.getLogger(__name__)

SAVING, REMOVING, RESULT_FOLDER = ".saving", ".removing", "result"
PREFIX = "checkpoint-"


def home_of(folder: Path) -> Path:
    """Where a folder that is being written aside will lie."""
    if folder.parent.name != SAVING:
        return folder
    output_dir = folder.parent.parent
    return output_dir if folder.name == RESULT_FOLDER else output_dir / folder.name


def sync_tree(folder: Path, names: Iterable[str], *, files: bool = True) -> None:
    """Have the folders that hold files, and `folder`, on the disk; with `files` their bytes first."""
    folders = {folder}
    for name in names:
        if files:
            sync_file(folder / name)
        folders |= {parent for parent in (folder / name).parents if parent.is_relative_to(folder)}
    for entry in sorted(folders, reverse=True):
        sync_folder(entry)


def write_durably(file: Path, text: str) -> None:
    """Write a small file and have it on the disk."""
    with file.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def step_in_name(folder: Path) -> int | None:
    """N of a folder `checkpoint-N`, None for other names."""
    digits = folder.name.removeprefix(PREFIX)
    return int(digits) if folder.name.startswith(PREFIX) and digits.isdecimal() else None


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """All `checkpoint-N`, the newest first; neither dates nor clocks are asked."""
    found = [entry for entry in output_dir.glob(f"{PREFIX}*") if entry.is_dir()]
    return sorted(
        (entry for entry in found if step_in_name(entry) is not None),
        key=lambda entry: step_in_name(entry) or 0,
        reverse=True,
    )


def move_aside(folder: Path) -> None:
    """Rename a folder to where it counts for nothing."""
    aside = folder.parent / REMOVING / folder.name
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(exist_ok=True)
    os.rename(folder, aside)


def remove_folder(folder: Path) -> None:
    """Delete a folder; from its first moment on it is no checkpoint any more, whenever a kill comes."""
    move_aside(folder)
    sync_folder(folder.parent)
    shutil.rmtree(folder.parent / REMOVING, ignore_errors=True)


def promote(staged: Path, target: Path) -> None:
    """Let a whole folder appear under its name, in place of one that may be there."""
    if target.exists():
        move_aside(target)
    os.rename(staged, target)
    sync_folder(target.parent)
    shutil.rmtree(target.parent / REMOVING, ignore_errors=True)
    shutil.rmtree(staged.parent, ignore_errors=True)


def promote_result(staged: Path, output_dir: Path) -> None:
    """Move the files of a whole result into the output folder, its manifest last.

    A kill in between is mended by calling it again: files lie either here or there.
    """
    manifest = read_manifest(staged)
    (output_dir / COMPLETE_NAME).unlink(missing_ok=True)
    for name in sorted(manifest.files):
        if (staged / name).is_file():
            (output_dir / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged / name, output_dir / name)
    sync_tree(output_dir, manifest.files, files=False)
    os.replace(staged / COMPLETE_NAME, output_dir / COMPLETE_NAME)
    sync_folder(output_dir)
    shutil.rmtree(staged.parent, ignore_errors=True)


def is_whole_result(staged: Path, output_dir: Path) -> bool:
    """Whether every file of a staged result lies here or there, as it was written."""
    try:
        manifest = read_manifest(staged)
    except DamagedError:
        return False
    for name, wanted in manifest.files.items():
        place = staged / name if (staged / name).is_file() else output_dir / name
        if not place.is_file() or measure(place) != wanted:
            return False
    return True


def tidy(output_dir: Path) -> None:
    """Finish or remove what an interrupted save or deletion left; call it under the run's lock only."""
    staging = output_dir / SAVING
    for staged in checkpoint_folders(staging):
        target = output_dir / staged.name
        if not target.exists() and is_valid(staged):
            logger.warning("%s was saved whole but had no name yet; it is taken up.", target)
            os.rename(staged, target)
            sync_folder(output_dir)
    result = staging / RESULT_FOLDER
    if is_whole_result(result, output_dir):
        logger.warning("%s: the result was saved whole but not in place yet; it is now.", output_dir)
        promote_result(result, output_dir)
    for leftover in (staging, output_dir / REMOVING):
        if leftover.exists():
            logger.info("Removing what an interrupted save left: %s", leftover)
            shutil.rmtree(leftover)


def is_valid(folder: Path) -> bool:
    """Whether a checkpoint folder verifies."""
    try:
        return verify(folder).position.step == step_in_name(folder)
    except (DamagedError, OSError):
        return False


def rotate(output_dir: Path, newest: Path, *, limit: int | None, best: Path | None) -> list[Path]:
    """Delete the oldest whole checkpoints up to `newest` beyond `limit` (None or 0: none): those deleted.

    `newest`, which must have verified, and `best` stay. Damaged and later ones are neither counted nor
    touched: they may be of another run.
    """
    if not limit or limit < 0:
        return []
    step = step_in_name(newest) or 0
    whole = [
        entry
        for entry in checkpoint_folders(output_dir)
        if (step_in_name(entry) or 0) <= step and has_manifest(entry)
    ]
    surplus, removed = len(whole) - limit, []
    for folder in reversed(whole):
        if len(removed) >= surplus:
            break
        if folder not in (newest, best):
            remove_folder(folder)
            removed.append(folder)
    return removed


def has_manifest(folder: Path) -> bool:
    """Whether a manifest of ours can be read there; files are not looked at."""
    try:
        read_manifest(folder)
    except DamagedError:
        return False
    return True


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
