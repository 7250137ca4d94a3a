"""What all benchmarks write down: the machine, versions, commit and command; medians with their spread."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from llava.durable import write_whole
from llava.eval.run_record import commit
from llava.eval.versions import versions

RESULTS = Path(__file__).parent / "results"
MIB = 1 << 20


def environment(command: Sequence[str]) -> dict[str, object]:
    """The machine and how the numbers came about; `command` are the words after `python -m`."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "command": " ".join(["python", "-m", *command]),
        "machine": {
            "processor": processor_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if cuda else None,
        },
        "commit": commit(),
        "versions": versions(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def processor_name() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    file = Path("/proc/cpuinfo")
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def median_of(values: Sequence[float]) -> dict[str, float]:
    """Median, and the spread: the distance between the largest and the smallest, over the median."""
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle if middle else 0.0
    return {"median": round_to(middle), "spread": round(spread, 3)}


def round_to(value: float, digits: int = 4) -> float:
    """A number to so many significant digits."""
    return float(f"{value:.{digits}g}")


def as_table(rows: Sequence[Sequence[object]]) -> str:
    """Rows as a Markdown table; the first row is the header, numbers stand at the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def table_of_rows(record: dict) -> str:
    """A record's `rows`, dictionaries with the same keys; numbers with fractions get three digits."""
    rows = record["rows"]
    cells = ([f"{cell:.3g}" if isinstance(cell, float) else cell for cell in row.values()] for row in rows)
    return as_table([[name.replace("_", " ") for name in rows[0]], *cells])


def write_result(record: dict[str, object], file: Path) -> None:
    """One result as JSON."""
    write_whole(file, json.dumps(record, indent=1) + "\n")
    sys.stdout.write(f"\nWritten to {file}\n")


class PeakMemory:
    """The most main memory that this process held since `start`, above what it held then."""

    def __init__(self) -> None:
        self.base = 0

    def start(self) -> None:
        """Begin anew; where the system cannot forget its peak, it counts from the process's start."""
        reset = Path("/proc/self/clear_refs")
        if reset.exists():
            reset.write_text("5")
        self.base = resident_bytes("VmRSS")

    def above_start(self) -> int:
        """Bytes."""
        return max(resident_bytes("VmHWM") - self.base, 0)


def resident_bytes(name: str) -> int:
    """Main memory of this process now (`VmRSS`) or at most so far (`VmHWM`), in bytes.

    Without /proc both are the peak, which `resource` knows.
    """
    file = Path("/proc/self/status")
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
