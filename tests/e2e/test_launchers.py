"""The training programs by path, as the original's scripts start them: python, torchrun, and DeepSpeed's
launcher.
"""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, losses, script_environment
from tests.parity.golden import golden
from tests.parity.training import saved_weights, working_folder

RUN = next(run for run in golden("train/trajectories.json")["runs"] if run["name"] == "full_cosine")
NUM_STEPS = 3  # the first has rate 0, so two of them change the model
PROGRAMS = ROOT / "llava" / "train"
LOSS_ATOL = 1e-5  # fp32: worst seen 1.0e-6
WEIGHT_ATOL = 1e-6  # fp32, ZeRO-3 against one process: worst seen 3.0e-8


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the golden paths are relative to."""
    return working_folder(tmp_path_factory.mktemp("models"))


def free_port() -> str:
    """A port for the launcher, so that tests can run beside each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def launch(launcher: list[str], program: str, flags: list[str], models: Path, output_dir: Path) -> None:
    """Start a program by its path from another folder, without the repository on Python's path."""
    result = subprocess.run(
        [*launcher, str(PROGRAMS / program), *RUN["args"], *flags, "--output_dir", str(output_dir)],
        cwd=models,
        env=script_environment({"PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:] + result.stdout[-1000:]


def assert_golden(output_dir: Path) -> None:
    """The first steps of the golden run."""
    wanted = [step["loss"] for step in RUN["steps"]]
    found = losses(output_dir)
    assert len(found) >= NUM_STEPS
    assert found[:2] == pytest.approx(wanted[:2], abs=LOSS_ATOL)  # then the schedule is a shorter one


@pytest.mark.parametrize("program", ["train.py", "train_mem.py", "train_xformers.py"])
def test_programs_by_path(program: str, models: Path, tmp_path: Path) -> None:
    launch([sys.executable], program, ["--max_steps", str(NUM_STEPS)], models, tmp_path / "out")
    assert_golden(tmp_path / "out")


def test_torchrun(models: Path, tmp_path: Path) -> None:
    launcher = ["torchrun", "--nproc_per_node", "1", "--master_port", free_port()]
    launch(launcher, "train_mem.py", ["--max_steps", str(NUM_STEPS)], models, tmp_path / "out")
    assert_golden(tmp_path / "out")


@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed (pip install deepspeed)"
)
@pytest.mark.parametrize("stage", [pytest.param("zero2", marks=pytest.mark.slow), "zero3"])
def test_deepspeed_launcher(stage: str, models: Path, tmp_path: Path) -> None:
    """It hands every process its `--local_rank`; all weights must be saved whole under ZeRO-3 too."""
    steps = ["--max_steps", str(NUM_STEPS)]
    settings = ["--deepspeed", str(ROOT / "scripts" / f"{stage}.json")]
    launcher = [str(Path(sys.executable).parent / "deepspeed"), "--master_port", free_port()]
    launch(launcher, "train_mem.py", [*settings, *steps], models, tmp_path / stage)
    assert_golden(tmp_path / stage)
    launch([sys.executable], "train_mem.py", steps, models, tmp_path / "single")
    found, wanted = saved_weights(tmp_path / stage), saved_weights(tmp_path / "single")
    assert found.keys() == wanted.keys()
    assert max((found[key] - wanted[key]).abs().max().item() for key in wanted) < WEIGHT_ATOL


@pytest.mark.parametrize("program", ["train.py", "train_mem.py", "train_xformers.py"])
def test_a_program_takes_the_package_around_it(program: str) -> None:
    """And not another one that is installed."""
    done = subprocess.run(
        [sys.executable, "-v", str(PROGRAMS / program), "--help"],
        env=script_environment({"PYTHONPATH": ""}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--lora_enable" in done.stdout
    for module in ("errors.py", "train/flags.py"):
        assert f"{ROOT}/llava/{module}" in done.stderr


def test_train_is_imported_as_in_the_original() -> None:
    code = "from llava.train.train import train; assert callable(train)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
