"""What the training scripts ask for: the defaults of LLaVA-1.5, variables from outside, the launchers."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(ROOT.glob("scripts/v1.5/*.sh"))
TRAINING = ("pretrain", "finetune", "finetune_lora", "finetune_task", "finetune_task_lora")


def command_of(script: str, tmp_path: Path, *flags: str, **variables: object) -> list[str]:
    """The command a training script would run, by giving it launchers that only print."""
    for name in ("python", "torchrun"):
        fake = tmp_path / name
        fake.write_text(f'#!/usr/bin/env bash\necho {name} "$@"\n', encoding="utf-8")
        fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin", "GPUS": "0"}
    result = subprocess.run(
        ["bash", f"scripts/v1.5/{script}.sh", *flags],
        cwd=ROOT,
        env=environment | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()[-1].split()


def value(command: list[str], flag: str) -> str:
    """What follows a flag; the last one counts, as for the trainer."""
    return command[len(command) - command[::-1].index(flag)]


def test_all_scripts_stop_at_errors_and_stand_where_users_look() -> None:
    assert {script.stem for script in SCRIPTS} >= {*TRAINING, "learn_forget"}
    assert (ROOT / "scripts" / "v1_5").resolve() == ROOT / "scripts" / "v1.5"
    for script in (*SCRIPTS, *ROOT.glob("scripts/v1.5/eval/*.sh"), *ROOT.glob("scripts/*.sh")):
        text = script.read_text(encoding="utf-8")
        assert text.startswith("#!/usr/bin/env bash\n#"), script
        assert "set -euo pipefail" in text, script


def test_lora_defaults_are_those_of_llava_15(tmp_path: Path) -> None:
    command = command_of("finetune_task_lora", tmp_path, GPUS=1)
    wanted = {
        "--lora_r": "128", "--lora_alpha": "256", "--learning_rate": "2e-4", "--mm_projector_lr": "2e-5",
        "--num_train_epochs": "1", "--per_device_train_batch_size": "16", "--lr_scheduler_type": "cosine",
        "--warmup_ratio": "0.03", "--model_max_length": "2048", "--bf16": "True", "--version": "v1",
        "--image_aspect_ratio": "pad", "--weight_decay": "0.",
    }  # fmt: skip
    assert {flag: value(command, flag) for flag in wanted} == wanted
    assert "--lora_enable" in command


@pytest.mark.parametrize(
    ("script", "rate", "length"),
    [("pretrain", "1e-3", "2048"), ("finetune", "2e-5", "2048"), ("finetune_task", "2e-5", "2048")],
)
def test_full_defaults_are_those_of_llava_15(script: str, rate: str, length: str, tmp_path: Path) -> None:
    command = command_of(script, tmp_path)
    assert value(command, "--learning_rate") == rate
    assert value(command, "--model_max_length") == length
    assert "--lora_enable" not in command
    assert ("--tune_mm_mlp_adapter" in command) == (script == "pretrain")


@pytest.mark.parametrize("script", TRAINING)
def test_without_a_gpu_the_same_script_runs_in_fp32(script: str, tmp_path: Path) -> None:
    command = command_of(script, tmp_path)
    assert command[0] == "python"
    assert value(command, "--bf16") == "False"
    assert value(command, "--gradient_checkpointing") == "False"
    assert "--deepspeed" not in command


def test_variables_and_flags_reach_the_trainer(tmp_path: Path) -> None:
    command = command_of(
        "finetune_task_lora", tmp_path, "--max_steps", "10", LEARNING_RATE="1e-5", LORA_R=8, OUTPUT_DIR="out"
    )
    assert value(command, "--learning_rate") == "1e-5"
    assert value(command, "--lora_r") == "8"
    assert value(command, "--output_dir") == "out"
    assert command[-2:] == ["--max_steps", "10"]


def test_several_gpus_use_torchrun_and_the_scripts_own_deepspeed(tmp_path: Path) -> None:
    command = command_of("finetune_task", tmp_path, GPUS=4)
    assert command[0] == "torchrun"
    assert value(command, "--nproc_per_node") == "4"
    assert value(command, "--deepspeed") == "./scripts/zero3.json"
    assert "--deepspeed" not in command_of("finetune_task", tmp_path, GPUS=4, DEEPSPEED="none")


def test_nodes_are_given_by_variables(tmp_path: Path) -> None:
    command = command_of(
        "finetune", tmp_path, GPUS=8, NNODES=2, NODE_RANK=1, MASTER_ADDR="head", MASTER_PORT=7
    )
    pairs = {"--nnodes": "2", "--node_rank": "1", "--master_addr": "head", "--master_port": "7"}
    assert {flag: value(command, flag) for flag in pairs} == pairs


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_script_leaves_nothing_running(stop: signal.Signals, tmp_path: Path) -> None:
    """Bash starts background commands deaf to Ctrl-C; a training run must not go on unseen."""
    script = (
        f"set -euo pipefail; cd {ROOT}; RUNS={tmp_path}; source scripts/common/mini_world.sh; "
        f"run() {{ (bash -c 'sleep 300 & echo $! >{tmp_path}/pid; wait'); }}; in_background run; wait $!"
    )
    process = subprocess.Popen(
        ["bash", "-c", script],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.is_file() and pid_file.read_text(encoding="utf-8").strip() != "")
    pid = int(pid_file.read_text(encoding="utf-8"))
    assert is_running(pid)
    os.killpg(process.pid, stop)
    _, message = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "goes on from there" in message
    wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be collected."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.strip() != "" and not state.startswith("Z")


def wait_until(condition: Callable[[], bool]) -> None:
    """At most 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.05)
