"""A process that has imported everything and forks for each training: about a second instead of ten.

    python -m tests.faults.warm

Jobs come as JSON lines on stdin, answers go out on stdout (see `tests.faults.warm_process`). It has one
thread when it forks: no pool of torch or OpenMP has been used here.
"""

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import signal
import sys
import time

import torch

from llava.errors import exit_on_usage_error
from llava.train import recipe
from llava.train.exit_codes import code_is_left
from tests.faults.operations import inject

STUCK = int(os.environ.get("FAULTS_STUCK_SECONDS", "100"))
"""After so many seconds a run's log shows where it is."""
LATE_IMPORTS = (
    "PIL.Image",
    "deepspeed",
    "transformers.models.clip.image_processing_pil_clip",
    "transformers.models.llama.modeling_llama",
)
"""What a training imports on the way, which would be done anew in every child."""


def run_job(job: dict) -> None:
    """Train in this forked process and leave it; what it says goes to the job's log."""
    status = 1
    try:
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.setsid()
        os.environ.update(job["environment"])
        faulthandler.dump_traceback_later(STUCK)
        flags = job["flags"]
        callbacks = inject(job["faults"], flags[flags.index("--output_dir") + 1])
        with code_is_left():
            exit_on_usage_error(recipe.run)(flags, callbacks=callbacks)
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def wait(began: dict[int, float], seconds: float) -> list[tuple[int, float]]:
    """Exit status (negative for a signal) and seconds of processes that began at these times, in their order;
    what takes longer than `seconds` from now is killed, with its loaders.
    """
    end = time.monotonic() + seconds
    ended: dict[int, tuple[int, float]] = {}
    while len(ended) < len(began):
        late = time.monotonic() > end
        for pid in began.keys() - ended.keys():
            if late:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            found, status = os.waitpid(pid, 0 if late else os.WNOHANG)
            if found:
                ended[pid] = (os.waitstatus_to_exitcode(status), time.monotonic() - began[pid])
        time.sleep(0.005)
    return [ended[pid] for pid in began]


def serve() -> None:
    """Answer jobs until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    recipe.checkpointing_for = lambda *_: False  # estimating memory is a third of a run, and not tested here
    for name in LATE_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    began: dict[int, float] = {}
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer = wait({pid: began.pop(pid) for pid in job["wait"]}, job["seconds"])
        else:
            answer = os.fork()
            if answer == 0:
                run_job(job)
            began[answer] = time.monotonic()
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
