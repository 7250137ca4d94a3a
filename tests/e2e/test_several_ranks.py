"""The training scripts with several processes and machines: signals and exit codes through torchrun, and two
nodes on this machine.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, losses, script_environment, training_variables
from tests.e2e.test_launchers import free_port

SCRIPT = "scripts/v1.5/finetune_task_lora.sh"
FLAGS = ("--logging_steps", "1", "--learning_rate", "1e-3", "--lora_dropout", "0", "--disable_tqdm", "True")
LOSS_ATOL = 2e-5  # as in test_training: fp32, worst seen 2.5e-6
USR1 = pytest.param("SIGUSR1", 143, False, marks=pytest.mark.slow)


def start(log: Path, *flags: str, **variables: object) -> subprocess.Popen:
    """A training script in the background, a process group of its own."""
    with log.open("wb") as out:
        return subprocess.Popen(
            ["bash", SCRIPT, *FLAGS, *flags],
            cwd=ROOT,
            env=script_environment(variables),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for_text(text: str, log: Path, process: subprocess.Popen) -> None:
    """Until the log has it."""
    deadline = time.monotonic() + 120
    while text not in log.read_text(encoding="utf-8"):
        assert process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
        assert time.monotonic() < deadline, f"{text} did not appear"
        time.sleep(0.05)


def children(log: Path) -> list[str]:
    """Lines of running processes that mention the run's output folder."""
    found = subprocess.run(["ps", "-eo", "pid,stat,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if str(log.parent / "out") in line and " Z" not in line]


@pytest.mark.parametrize(("name", "code", "whole_group"), [("SIGINT", 130, True), USR1])
def test_a_signal_to_the_script_stops_all_ranks_with_a_checkpoint(
    name: str, code: int, whole_group: bool, lesson: Path, tmp_path: Path
) -> None:
    """As Ctrl-C in a terminal, which reaches the script's group, and as Slurm's notice, the script alone."""
    variables = training_variables(lesson, tmp_path / "out")
    # no loader processes: Python 3.11 can hang in a fork beside torch's threads, and this forks every 5 steps
    variables |= {"BATCH_SIZE": 4, "NPROC": 2, "WORKERS": 0, "MASTER_PORT": free_port()}
    log = tmp_path / "log"
    process = start(log, "--max_steps", "2000", **variables)
    wait_for_text("'loss'", log, process)
    (os.killpg if whole_group else os.kill)(process.pid, signal.Signals[name])
    assert process.wait(timeout=120) == code, log.read_text(encoding="utf-8")[-3000:]
    text = log.read_text(encoding="utf-8")
    assert "The same command goes on from there" in text
    assert len(list((tmp_path / "out").glob("checkpoint-*"))) == 1
    assert children(log) == []


def test_the_exit_code_of_a_rank_is_that_of_the_script(lesson: Path, tmp_path: Path) -> None:
    variables = training_variables(lesson, tmp_path / "out")
    variables |= {"NUM_GPUS": 2, "MASTER_PORT": free_port(), "DATA_PATH": tmp_path / "absent.json"}
    log = tmp_path / "log"
    assert start(log, **variables).wait(timeout=120) == 2, log.read_text(encoding="utf-8")[-2000:]
    assert "absent.json" in log.read_text(encoding="utf-8")


@pytest.mark.slow
def test_two_nodes_give_the_losses_of_one_process(lesson: Path, tmp_path: Path) -> None:
    """Two torchrun agents that meet at a port, as on two machines."""
    steps = ("--max_steps", "5")
    single = start(tmp_path / "single", *steps, **training_variables(lesson, tmp_path / "one"))
    assert single.wait(timeout=200) == 0, (tmp_path / "single").read_text(encoding="utf-8")[-2000:]
    shared = training_variables(lesson, tmp_path / "out") | {
        "BATCH_SIZE": 4,
        "NUM_GPUS": 1,
        "NUM_NODES": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "WORKERS": 0,
    }
    nodes = [start(tmp_path / f"node{rank}", *steps, **shared, NODE_RANK=rank) for rank in range(2)]
    for rank, node in enumerate(nodes):
        assert node.wait(timeout=200) == 0, (tmp_path / f"node{rank}").read_text(encoding="utf-8")[-2000:]
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "one"), abs=LOSS_ATOL)
