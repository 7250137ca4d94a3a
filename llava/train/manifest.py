"""The manifest of a checkpoint folder, `complete.json`: it is written last, and says what is there.

A folder counts only when its manifest does and every file has the size and the SHA-256 that stand there, so
that neither an interrupted save nor a flipped bit is ever gone on from. Free of torch.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

COMPLETE_NAME = "complete.json"
FORMAT = 1
SEAL = "sha256 of the rest"
MOST_THREADS = 8
CHECKPOINT, RESULT = "checkpoint", "result"
WEIGHTS = re.compile(r"(model|adapter_model)(-\d+-of-\d+)?\.safetensors|mm_projector\.bin")
STATE_NAMES = ("trainer_state.json", "config.json", "tokenizer.json", "preprocessor_config.json")


class DamagedError(ValueError):
    """Why a checkpoint folder cannot be used, in a clause: `optimizer.pt is missing`."""


@dataclass(frozen=True)
class Facts:
    """What decides whether a checkpoint fits a run.

    `fingerprint`: what alters the result, by name (JSON values). `ranks`: processes whose random states are
    in the folder. `deepspeed`: the engine keeps optimiser and schedule in files of its own.
    """

    fingerprint: dict[str, object]
    seed: int = 0
    ranks: tuple[int, ...] = (0,)
    world_size: int = 1
    deepspeed: bool = False
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Position:
    """How far a run was: optimiser steps, samples drawn in all, the epoch from 0, samples drawn of it.

    `packing` names how rows are filled; a pack never waits for the next batch, so that this is all of it.
    """

    step: int
    samples: int
    epoch: int
    samples_of_epoch: int
    packing: str


@dataclass(frozen=True)
class Manifest:
    """What `complete.json` holds: `files` maps relative names to (bytes, SHA-256)."""

    kind: str
    position: Position
    facts: Facts
    files: dict[str, tuple[int, str]]
    resumable: bool = True

    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())

    def text(self) -> str:
        """As JSON, with a sum of its own."""
        return sealed({"format": FORMAT, **asdict(self)})


def sealed(values: dict) -> str:
    """JSON with the SHA-256 of its values, so that a flipped bit in a manifest itself is seen."""
    body = {key: value for key, value in values.items() if key != SEAL}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, SEAL: digest}, indent=1, sort_keys=True) + "\n"


def required_problem(manifest: Manifest) -> str | None:
    """The first part of a checkpoint that its manifest does not name, None when all are there."""
    names, facts = set(manifest.files), manifest.facts
    if not any(WEIGHTS.fullmatch(name) for name in names):
        return "no file of weights"
    wanted = list(STATE_NAMES)
    if manifest.kind == CHECKPOINT and manifest.resumable:
        one = facts.world_size == 1
        wanted += ["rng_state.pth"] if one else [f"rng_state_{rank}.pth" for rank in facts.ranks]
        if facts.deepspeed:
            wanted.append("latest")
            shards = [name for name in names if name.endswith("_optim_states.pt")]
            if len(shards) < len(facts.ranks):
                return f"{len(shards)} optimiser files of {len(facts.ranks)} ranks"
        else:
            wanted += ["optimizer.pt", "scheduler.pt"]
    missing = [name for name in wanted if name not in names]
    return f"no {missing[0]}" if missing else None


def list_files(folder: Path) -> list[str]:
    """Relative names of all files below a folder but its manifest, in order."""
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in names if name != COMPLETE_NAME)


def measure(file: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file."""
    with file.open("rb") as stream:
        return os.fstat(stream.fileno()).st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def measure_all(folder: Path, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Bytes and SHA-256 of files, several at a time."""
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        return dict(zip(names, pool.map(measure, [folder / name for name in names]), strict=True))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder; `DamagedError` without one, or when it is no manifest of this format."""
    file = folder / COMPLETE_NAME
    try:
        text = file.read_text(encoding="utf-8")
        values = json.loads(text)
    except FileNotFoundError:
        raise DamagedError(f"it has no {COMPLETE_NAME}: its saving was interrupted") from None
    except (OSError, ValueError) as error:
        raise DamagedError(f"{COMPLETE_NAME} cannot be read ({error})") from None
    try:
        manifest = parse_manifest(values)
        if sealed(values) != text:
            raise DamagedError(f"{COMPLETE_NAME} changed since saving")
        return manifest
    except DamagedError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DamagedError(f"{COMPLETE_NAME} is no manifest of format {FORMAT} ({error!r})") from None


def parse_manifest(values: dict) -> Manifest:
    """The values of a JSON manifest; raises for anything else."""
    if values["format"] != FORMAT:
        raise ValueError(f"format {values['format']}")
    facts = values["facts"]
    return Manifest(
        kind=str(values["kind"]),
        position=Position(**{entry.name: values["position"][entry.name] for entry in fields(Position)}),
        facts=Facts(**facts | {"ranks": tuple(facts["ranks"])}),
        files={str(name): (int(size), str(digest)) for name, (size, digest) in values["files"].items()},
        resumable=bool(values["resumable"]),
    )


def verify(folder: Path) -> Manifest:
    """The manifest of a folder of which everything is as it was written; `DamagedError` names what is not."""
    manifest = read_manifest(folder)
    problem = required_problem(manifest)
    if problem:
        raise DamagedError(f"{COMPLETE_NAME} names {problem}")
    check_sizes(folder, manifest)
    found = measure_all(folder, sorted(manifest.files))
    changed = [name for name, value in found.items() if value != manifest.files[name]]
    if changed:
        raise DamagedError(f"{listed(changed)} changed since saving (SHA-256)")
    return manifest


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """`DamagedError` for files that are missing or have another size, without reading them."""
    for name, (size, _) in sorted(manifest.files.items()):
        try:
            found = (folder / name).stat().st_size
        except OSError:
            raise DamagedError(f"{name} is missing") from None
        if found != size:
            raise DamagedError(f"{name} has {found:,} bytes, {size:,} were saved")


def listed(names: Iterable[str], shown: int = 5) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
