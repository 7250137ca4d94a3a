"""The side of a test: one warm process (`tests.faults.warm`) that forks trainings."""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e.conftest import ROOT, script_environment


class Ended(NamedTuple):
    """How a training ended: exit status (negative: a signal) and seconds since its fork."""

    status: int
    seconds: float


class WarmProcess:
    """Forks trainings whose relative paths begin at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warm"],
            cwd=folder,
            env=script_environment({"PYTHONPATH": ROOT, "CUDA_VISIBLE_DEVICES": ""}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self, flags: Sequence[str], log: Path, *, environment: dict[str, str], faults: dict[str, object]
    ) -> int:
        """Begin a training: its process id. `faults`: see `tests.faults.operations`."""
        job = {"flags": list(flags), "log": str(log), "environment": environment, "faults": faults}
        return self._ask(job)

    def wait(self, pids: Sequence[int], seconds: float) -> list[Ended]:
        """How trainings ended; those that take longer are killed."""
        return [Ended(*entry) for entry in self._ask({"wait": list(pids), "seconds": seconds})]

    def _ask(self, job: dict[str, object]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End it, with its pipes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def environments_of_ranks(count: int) -> list[dict[str, str]]:
    """What torchrun would set for the ranks of one run on this machine; nothing for a single one."""
    if count == 1:
        return [{}]
    port = free_port()
    fixed = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        {name: str(value) for name, value in {"RANK": rank, "LOCAL_RANK": rank, **fixed}.items()}
        for rank in range(count)
    ]


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
