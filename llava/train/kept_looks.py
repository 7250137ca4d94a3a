"""Which pictures were found good, kept beside the data file, so that a large folder is decoded once.

A picture is known by size and times: not a byte of it is read again, as reading is what takes so long. The
time of change (`ctime`) is set by the system at every write and cannot be set back by copying.
"""

import contextlib
import json
import logging
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from llava.durable import write_whole
from llava.picture_checks import Look
from llava.train.index_file import LONGEST_STEM, cache_folders, digest_of, digest_of_code

logger = logging.getLogger(__name__)

CODE = ("images.py", "picture_checks.py")
"""What a look depends on, beside Pillow and the settings."""


class KeptLooks:
    """Looks at pictures of earlier starts. Those at pictures with a problem are not kept: they get mended."""

    def __init__(self, data: Path | None, *, decode: bool, max_pixels: int) -> None:
        """`data`: the data file beside which they lie, None to keep nothing."""
        self.data = data
        self.settings = digest_of(digest_of_code(*CODE), version("pillow"), decode, max_pixels)
        self.known = self._read()
        self.seen: dict[str, list] = {}

    def _files(self) -> list[Path]:
        """Where looks may lie, the better place first."""
        if self.data is None:
            return []
        name = f"{self.data.stem[:LONGEST_STEM]}-{digest_of(self.data.resolve())}.pictures.json"
        return [folder / name for folder in cache_folders(self.data)]

    def _read(self) -> dict[str, list]:
        """Path -> [size, times, notes]; nothing where there is no whole file of these settings."""
        for file in self._files():
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(file.read_text(encoding="ascii"))
                if isinstance(found, dict) and found.get("settings") == self.settings:
                    return found["pictures"]
        return {}

    def look(self, look_at: Callable[[str], Look], path: str) -> Look:
        """What is known of a picture that is still the same, else what `look_at` sees."""
        state = state_of(path)
        entry = self.known.get(path)
        if state is not None and isinstance(entry, list) and entry[:-1] == state:
            look = Look(notes=tuple((str(kind), str(text)) for kind, text in entry[-1]))
        else:
            look = look_at(path)
        if state is not None and look.problem is None:
            self.seen[path] = [*state, look.notes]
        return look

    def save(self) -> None:
        """Write what was seen, in one step; where that cannot be, say so."""
        for file in self._files():
            try:
                write_whole(file, json.dumps({"settings": self.settings, "pictures": self.seen}), mode=0o600)
                return
            except OSError as error:
                logger.warning("What was seen of pictures is not kept in %s: %s.", file.parent, error)


def state_of(path: str) -> list[int] | None:
    """What changes when a file is written or replaced; None without a file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
