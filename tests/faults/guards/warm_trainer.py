"""A process that has imported everything and forks a training, or the ranks of one, for each line that it
reads.

A line: {"argv": [...], "ranks": 1, "fault": {...}, "log": "...", "timeout": 60}; an answer: exit codes and
seconds by rank.
"""

import importlib
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

import torch

from llava.errors import exit_on_usage_error
from llava.train import recipe
from llava.train.exit_codes import code_is_left
from tests.faults.guards.injected import arm


def train(job: dict[str, Any], rank: int, port: int) -> None:
    """In a child: one rank to its end."""
    log = os.open(f"{job['log']}{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.setsid()
    if job["ranks"] > 1:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        values = (rank, rank, job["ranks"], job["ranks"], "127.0.0.1", port)
        os.environ |= {name: str(value) for name, value in zip(names, values, strict=True)}
    os.environ["LLAVA_EXIT_CODE_FILE"] = f"{job['log']}code"
    run = exit_on_usage_error(recipe.run)
    with code_is_left():
        run(job["argv"], callbacks=arm(job["fault"]))


def child(job: dict[str, Any], rank: int, port: int) -> None:
    """Never returns; the exit code is what the interpreter would give."""
    code = 1
    try:
        train(job, rank, port)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def free_port() -> int:
    """For the ranks' connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Fork the ranks and wait for them."""
    started, port = time.monotonic(), free_port()
    pids = {}
    for rank in range(job["ranks"]):
        pid = os.fork()
        if pid == 0:
            child(job, rank, port)
        pids[pid] = rank
    codes: dict[int, int] = {}
    seconds: dict[int, float] = {}
    while pids:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in pids:
            rank = pids.pop(pid)
            codes[rank] = os.waitstatus_to_exitcode(status)
            seconds[rank] = time.monotonic() - started
        elif time.monotonic() - started > job["timeout"]:
            for left in pids:
                os.killpg(left, signal.SIGKILL)
        else:
            time.sleep(0.01)
    ranks = range(job["ranks"])
    return {"codes": [codes[rank] for rank in ranks], "seconds": [seconds[rank] for rank in ranks]}


LATE_IMPORTS = (
    "PIL.Image",
    "deepspeed",
    "transformers.models.clip.image_processing_pil_clip",
    "transformers.models.llama.modeling_llama",
)
"""What a training imports on the way, which would be done anew in every child."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for name in LATE_IMPORTS:
        with suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        answers.write(f"{json.dumps(run(json.loads(line)))}\n")
        answers.flush()
