"""The original's checkpoints, listed kind by kind: ours have the same names, shapes and options."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava.model import export as command
from llava.model.checkpoint import read_projector, write_projector
from llava.model.export import export
from llava.model.key_names import PLAIN_LANGUAGE_MODEL, KeyTable, original_table
from llava.model.write_original import TOWER_NAMES
from tests.parity.golden import BASES, DATA, golden, golden_folder

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = golden("checkpoints/manifest.json")
OBSERVATIONS = MANIFEST.pop("observations")
Shapes = dict[str, list[int]]

WRITTEN = {
    "task_finetune_bf16": "llava-v1.5-tiny",
    "linear_projector_bf16": "llava-v1.5-tiny-linear",
    "im_start_end_bf16": "llava-v1.5-tiny-imse",
    "merged_lora": "llava-v1.5-tiny-lora",
}
"""Kind -> the golden checkpoint that is written as this kind."""

PROJECTORS = {"pretrain_projector": "llava-v1.5-tiny-pretrain"}

NOT_WRITTEN = {
    "full_finetune_fp32": "the names of task_finetune_bf16, in another type; the checkpoint is not at hand",
    "full_finetune_bf16_from_base": "the same; there the projector is left in fp32, ours has one type",
    "full_finetune_fp32_intermediate": "step checkpoints are in our own layout",
    "pretrain_projector_intermediate": "the same file as at the end; ours has the optimiser beside it",
    "lora_fp32": "adapters are written as PEFT has them; the original's are read",
    "lora_fp32_intermediate": "step checkpoints are in our own layout, with the projector inside",
    "task_lora_bf16": "adapters are written as PEFT has them; the original's are read",
    "base_llama": "an input: a language model by itself",
    "vision_tower": "an input; beside an export it is written anew, see below",
}

OPTIONS_LEFT_OUT = {
    "_name_or_path": "the path of the machine that wrote it",
    "mm_projector_lr": "of the training run, which an export does not know",
    "transformers_version": "nothing in the file depends on it",
}
OPTIONS_OTHERWISE = {
    "mm_vision_tower": "names the tower that is written beside the checkpoint",
    "torch_dtype": "merged weights keep the type of the base; the original's merge was recorded in fp32",
}
FILES_LEFT_OUT = {"trainer_state.json", "training_args.bin"}


def tower_shapes() -> Shapes:
    """The vision tower by the names of its own folder."""
    return shapes_in(MANIFEST["vision_tower"]["tensors"]["model.safetensors"]["entries"])


def shapes_in(entries: dict) -> Shapes:
    """Name -> shape of a manifest's entries (name -> [shape, type])."""
    return {name: shape for name, (shape, _) in entries.items()}


def recorded(kind: str) -> Shapes:
    """All tensors of model.safetensors of a kind, tower included."""
    if kind == "merged_lora":  # there in words: the base with the adapter's projector
        entries = MANIFEST["base_llama"]["tensors"]["model.safetensors"]["entries"]
        tuned = MANIFEST["lora_fp32"]["tensors"]["non_lora_trainables.bin"]["entries"]
        entries = entries | {name.removeprefix("base_model.model."): value for name, value in tuned.items()}
        return shapes_in(entries) | with_tower("model.vision_tower.vision_tower.")
    listed = MANIFEST[kind]["tensors"]["model.safetensors"]
    entries = listed["entries"]
    if isinstance(entries, str):
        assert entries.startswith("same keys and shapes as full_finetune_fp32")
        entries = MANIFEST["full_finetune_fp32"]["tensors"]["model.safetensors"]["entries"]
    tower = listed["vision_tower_entries"]
    assert tower["count"] == len(tower_shapes())
    return shapes_in(entries) | with_tower(tower["prefix"])


def with_tower(prefix: str) -> Shapes:
    """The tower's tensors below a prefix."""
    return {prefix + name: shape for name, shape in tower_shapes().items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every golden checkpoint in the original's layout; test_export has the check of their logits."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "check_apart", lambda *_: 0.0)
        for kind, name in WRITTEN.items():
            base = str(golden_folder(BASES[name])) if name in BASES else None
            export(str(golden_folder(name)), base, folder / kind, to="llava")
    return folder


def read(file: Path) -> dict:
    """One JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def test_every_kind_is_written_or_left_out_for_a_reason() -> None:
    kinds = (*WRITTEN, *PROJECTORS, *NOT_WRITTEN)
    assert len(set(kinds)) == len(kinds)
    assert set(kinds) == set(MANIFEST)


@pytest.mark.parametrize("kind", WRITTEN)
def test_names_and_shapes_of_whole_models(kind: str, exported: Path) -> None:
    stored = load_file(exported / kind / "model.safetensors")
    assert {name: list(value.shape) for name, value in stored.items()} == recorded(kind)
    tower = load_file(exported / f"{kind}-vision-tower" / "model.safetensors")
    assert {name: list(value.shape) for name, value in tower.items()} == tower_shapes()


@pytest.mark.parametrize("kind", WRITTEN)
def test_options_and_files_of_whole_models(kind: str, exported: Path) -> None:
    folder, listed = exported / kind, MANIFEST[kind]
    found, wanted = read(folder / "config.json"), listed["config.json"]
    assert set(wanted) - set(found) <= set(OPTIONS_LEFT_OUT)
    differing = {name for name in set(found) & set(wanted) if found[name] != wanted[name]}
    assert differing <= set(OPTIONS_OTHERWISE)
    assert ("torch_dtype" in differing) == (kind == "merged_lora")
    assert {entry.name for entry in folder.iterdir()} == set(listed["files"]) - FILES_LEFT_OUT
    generation = read(folder / "generation_config.json")
    special = {name for name in listed["generation_config.json"] if name.endswith("_token_id")}
    assert special
    assert {name: generation[name] for name in special} == {
        name: listed["generation_config.json"][name] for name in special
    }


@pytest.mark.parametrize("kind", PROJECTORS)
def test_names_shapes_and_types_of_projectors(kind: str, tmp_path: Path) -> None:
    entries = MANIFEST[kind]["tensors"]["mm_projector.bin"]["entries"]
    write_projector(read_projector(golden_folder(PROJECTORS[kind]) / "mm_projector.bin"), tmp_path)
    stored = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    found = {
        name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in stored.items()
    }
    assert found == entries


def test_a_linear_projector_is_not_numbered(tmp_path: Path) -> None:
    entries = recorded("linear_projector_bf16")
    projector = {name: shape for name, shape in entries.items() if "mm_projector" in name}
    state = {f"linear_1.{name.rpartition('.')[2]}": torch.zeros(shape) for name, shape in projector.items()}
    write_projector(state, tmp_path)
    stored = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    assert {name: list(value.shape) for name, value in stored.items()} == projector


@cache
def named_tensors() -> dict[str, tuple[KeyTable, list[str]]]:
    """Every list of names in the manifest, with the table that translates it."""
    found: dict[str, tuple[KeyTable, list[str]]] = {}
    for kind, listed in MANIFEST.items():
        if isinstance(listed["tensors"], str):  # the same as those of another kind
            continue
        table = original_table(listed.get("config.json", {}).get("mm_projector_type", "mlp2x_gelu"))
        for file, part in listed["tensors"].items():
            names = list(recorded(kind)) if "vision_tower_entries" in part else list(part["entries"])
            table = {"base_llama": PLAIN_LANGUAGE_MODEL, "vision_tower": TOWER_NAMES}.get(kind, table)
            found[f"{kind}/{file}"] = table, [name.removeprefix("base_model.model.") for name in names]
    return found


@pytest.mark.parametrize("source", named_tensors())
def test_every_name_goes_to_memory_and_back(source: str) -> None:
    table, names = named_tensors()[source]
    assert names
    inside = [table.to_memory(name) for name in names]
    assert [table.to_disk(name) for name in inside] == names
    assert len(set(inside)) == len(names)


def train_projector(output_dir: Path, *flags: str) -> subprocess.CompletedProcess:
    """The projector-only stage on golden data, on the CPU."""
    models = DATA / "models"
    arguments = {
        "--model_name_or_path": models / "tiny-vicuna-v1.5",
        "--vision_tower": models / "tiny-clip",
        "--data_path": DATA / "data" / "traj_plain.json",
        "--image_folder": DATA,
        "--output_dir": output_dir,
        "--version": "plain",
        "--mm_projector_type": "mlp2x_gelu",
        "--mm_vision_select_layer": -2,
        "--mm_use_im_patch_token": False,
        "--tune_mm_mlp_adapter": True,
        "--per_device_train_batch_size": 2,
        "--save_strategy": "steps",
        "--save_steps": 1,
        "--logging_steps": 1,
        "--report_to": "none",
    }
    pairs = [str(text) for pair in arguments.items() for text in pair]
    return subprocess.run(
        [sys.executable, str(ROOT / "llava/train/train_mem.py"), *pairs, *flags],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_projector_stage_goes_on_from_its_step_checkpoints(tmp_path: Path) -> None:
    """There the second run dies: step checkpoints of this stage hold nothing to go on from.

    With a constant rate a run may be made longer.
    """
    assert OBSERVATIONS["resume_of_projector_stage"]["exit_code"] == 1
    mark, written = tmp_path / "run" / "checkpoint-2" / "complete.json", []
    for steps in (2, 3):
        flags = ("--max_steps", str(steps), "--lr_scheduler_type", "constant")
        result = train_projector(tmp_path / "run", *flags)
        assert result.returncode == 0, result.stderr[-2000:]
        written.append(mark.stat().st_mtime_ns)
    state = read(tmp_path / "run" / "trainer_state.json")
    assert [row["step"] for row in state["log_history"] if "loss" in row] == [1, 2, 3]
    assert written[0] == written[1], "the first steps must not run again"


def test_start_and_end_tokens_in_the_projector_stage_do_not_crash(tmp_path: Path) -> None:
    """There NotImplementedError after loading; here the run works, or is refused by the flag's name."""
    assert OBSERVATIONS["im_start_end_in_projector_stage"]["last_line"] == "NotImplementedError"
    result = train_projector(tmp_path / "run", "--mm_use_im_start_end", "True", "--max_steps", "1")
    assert "Traceback" not in result.stderr
    assert result.returncode == 0 or (result.returncode == 2 and "mm_use_im_start_end" in result.stderr)
