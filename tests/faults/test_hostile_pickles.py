"""Pickled code in every file that a user can name: it never runs, and the message says which file it is."""

import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from llava.errors import UsageError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import read_projector
from llava.model.vision_tower import load_vision_tower
from llava.train import recipe
from llava.train.flags import check_flags
from llava.train.resume_files import refuse_pickled_code
from scripts import extract_mm_projector
from tests.e2e.conftest import BASE, ROOT
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.hostile import Harmful
from tests.faults.manifests import reseal
from tests.parity.golden import DATA

FULL, LORA, STAGE = "llava-v1.5-tiny", "llava-v1.5-tiny-lora", "llava-v1.5-tiny-pretrain"
LANGUAGE_MODEL, TOWER = "tiny-vicuna-v1.5", "tiny-clip"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A copy of all golden models, to be changed."""
    return Path(shutil.copytree(DATA / "models", tmp_path / "models"))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "pickled code ran"


def plain(file: Path, marker: Path) -> None:
    file.write_bytes(pickle.dumps({"model.norm.weight": Harmful(marker)}))


def archive(file: Path, marker: Path) -> None:
    torch.save({"a": torch.zeros(2), "model.norm.weight": Harmful(marker)}, file)


def legacy(file: Path, marker: Path) -> None:
    torch.save({"a": Harmful(marker)}, file, _use_new_zipfile_serialization=False)


def nested(file: Path, marker: Path) -> None:
    torch.save([{"state": {0: (Harmful(marker), torch.zeros(2))}}], file)


FORMS: list[Callable[[Path, Path], None]] = [plain, archive, legacy, nested]


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def pickled(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path, Path], None]:
    """One way to write a pickle that does something; first it is seen to do it."""
    proof, file = tmp_path / "proof", tmp_path / "proof.bin"
    request.param(file, proof)
    if request.param is plain:
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert proof.is_file(), "a pickle that does nothing would prove nothing"
    return request.param


def whole(models: Path) -> Path:
    (models / FULL / "model.safetensors").unlink()
    return models / FULL / "pytorch_model.bin"


def shard(models: Path) -> Path:
    (models / FULL / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "pytorch_model-00001-of-00001.bin"}}
    (models / FULL / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    return models / FULL / "pytorch_model-00001-of-00001.bin"


def base(models: Path) -> Path:
    (models / LANGUAGE_MODEL / "model.safetensors").unlink()
    return models / LANGUAGE_MODEL / "pytorch_model.bin"


def adapter(models: Path) -> Path:
    (models / LORA / "adapter_model.safetensors").unlink(missing_ok=True)
    return models / LORA / "adapter_model.bin"


OPENED = {
    "pytorch_model.bin": (FULL, None, whole),
    "a shard": (FULL, None, shard),
    "the base's weights": (LORA, LANGUAGE_MODEL, base),
    "non_lora_trainables.bin": (
        LORA,
        LANGUAGE_MODEL,
        lambda models: models / LORA / "non_lora_trainables.bin",
    ),
    "adapter_model.bin": (LORA, LANGUAGE_MODEL, adapter),
    "mm_projector.bin": (STAGE, LANGUAGE_MODEL, lambda models: models / STAGE / "mm_projector.bin"),
}


@pytest.mark.parametrize("position", OPENED)
def test_weights_of_a_checkpoint(
    position: str, pickled: Callable, models: Path, marker: Path, fault_log: FaultLog
) -> None:
    name, named_base, place = OPENED[position]
    file = place(models)
    pickled(file, marker)
    with pytest.raises(UsageError, match=rf"{re.escape(file.name)} holds no tensors that can be read safely"):
        load_pretrained_model(str(models / name), str(models / named_base) if named_base else None)
    assert not marker.exists()
    fault_log(f"pickled code in {position}", "refused by name, not run", REFUSED)


def test_weights_of_the_tower(pickled: Callable, models: Path, marker: Path, fault_log: FaultLog) -> None:
    (models / TOWER / "model.safetensors").unlink()
    pickled(models / TOWER / "pytorch_model.bin", marker)
    with pytest.raises(UsageError, match=r"pytorch_model\.bin holds no tensors"):
        load_vision_tower(models / TOWER, dtype="auto")
    assert not marker.exists()
    fault_log("pickled code in the vision tower's weights", "refused by name, not run", REFUSED)


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "safetensors", "ckpt"])
def test_a_projector_to_start_from(
    suffix: str, pickled: Callable, marker: Path, tmp_path: Path, fault_log: FaultLog
) -> None:
    file = tmp_path / f"mm_projector.{suffix}"
    pickled(file, marker)
    with pytest.raises(UsageError, match=rf"mm_projector\.{suffix} holds no tensors"):
        read_projector(file)
    assert not marker.exists()
    fault_log("pickled code in --pretrain_mm_mlp_adapter", "refused by name, not run", REFUSED)


def test_training_args_are_never_read(
    pickled: Callable, models: Path, marker: Path, fault_log: FaultLog
) -> None:
    for name in (FULL, LORA, STAGE, LANGUAGE_MODEL, TOWER):
        pickled(models / name / "training_args.bin", marker)
    load_pretrained_model(str(models / FULL))
    load_pretrained_model(str(models / LORA), str(models / LANGUAGE_MODEL))
    load_pretrained_model(str(models / STAGE), str(models / LANGUAGE_MODEL))
    assert not marker.exists()
    fault_log("pickled code in training_args.bin", "not read", SURVIVED, 5)


def stretched(file: Path) -> None:
    """Four bytes that claim to be 4 TB."""
    torch.save({"model.norm.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, file)


def packed(file: Path) -> None:
    """A megabyte that unpacks to a gigabyte."""
    torch.save({"model.norm.weight": torch.zeros(1 << 20)}, file)
    with zipfile.ZipFile(file) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in entries.items():
            target.writestr(name, content * (64 if "/data/" in name else 1))


def no_tensors(file: Path) -> None:
    torch.save({"model.norm.weight": 3}, file)


def no_dictionary(file: Path) -> None:
    torch.save([torch.zeros(2)], file)


def sparse(file: Path) -> None:
    torch.save({"model.norm.weight": torch.zeros(4, 4).to_sparse()}, file)


@pytest.mark.parametrize("write", [stretched, packed, no_tensors, no_dictionary, sparse])
def test_tensors_that_are_none(write: Callable[[Path], None], tmp_path: Path, fault_log: FaultLog) -> None:
    file = tmp_path / "mm_projector.bin"
    write(file)
    with pytest.raises(UsageError, match=r"mm_projector\.bin"):
        read_projector(file)
    fault_log("a .bin file with something else than whole tensors", "refused", REFUSED)


FLAGS = (
    "--model_name_or_path", str(BASE), "--per_device_train_batch_size", "2", "--max_steps", "1",
    "--save_steps", "1", "--save_strategy", "steps", "--lora_enable", "True", "--lora_r", "2",
    "--check_pictures", "none",
)  # fmt: skip


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The command line of a run that wrote a checkpoint, and that checkpoint."""
    folder = tmp_path_factory.mktemp("stopped")
    turns = [{"from": "human", "value": "What is one plus two?"}, {"from": "gpt", "value": "three"}]
    rows = [{"id": number, "conversations": turns} for number in range(4)]
    (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    argv = [*FLAGS, "--data_path", str(folder / "train.json"), "--output_dir", str(folder / "out")]
    recipe.run(argv)
    return argv, folder / "out" / "checkpoint-1"


RESUMED = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt")


@pytest.mark.parametrize("name", RESUMED)
def test_state_of_a_resumed_run(
    name: str, pickled: Callable, stopped_run: tuple, marker: Path, tmp_path: Path, fault_log: FaultLog
) -> None:
    argv, checkpoint = stopped_run
    out = tmp_path / "out"
    shutil.copytree(checkpoint, out / checkpoint.name)
    refuse_pickled_code(out / checkpoint.name)  # as the run wrote it, it is fine
    pickled(out / checkpoint.name / "training_args.bin", marker)
    refuse_pickled_code(out / checkpoint.name)
    pickled(out / checkpoint.name / name, marker)
    reseal(out / checkpoint.name)
    with pytest.raises(UsageError, match=rf"{re.escape(name)} .*it is not opened"):
        recipe.run([*argv[:-1], str(out)])
    assert not marker.exists()
    fault_log(f"pickled code in {name} of a resumed run", "refused by name, not run", REFUSED)


def test_the_adapter_of_a_resumed_run(stopped_run: tuple, marker: Path, tmp_path: Path) -> None:
    """A checkpoint of ours holds safetensors; one without them is none, whatever lies beside."""
    argv, checkpoint = stopped_run
    out = tmp_path / "out"
    shutil.copytree(checkpoint, out / checkpoint.name)
    (out / checkpoint.name / "adapter_model.safetensors").unlink()
    archive(out / checkpoint.name / "adapter_model.bin", marker)
    reseal(out / checkpoint.name)
    with pytest.raises(UsageError, match=r"complete\.json names no file of weights"):
        recipe.run([*argv[:-1], str(out)])
    assert not marker.exists()


def test_no_run_goes_on_from_elsewhere(tmp_path: Path, fault_log: FaultLog) -> None:
    needed = ["--model_name_or_path", "a", "--data_path", "b", "--output_dir", "c"]
    check_flags([*needed, "--resume_from_checkpoint", "True"])
    for foreign in (str(tmp_path), "../other/checkpoint-3", "somebody/hub-id"):
        with pytest.raises(UsageError, match="from the newest checkpoint of its own --output_dir"):
            check_flags([*needed, "--resume_from_checkpoint", foreign])
    fault_log("--resume_from_checkpoint names a foreign folder", "refused", REFUSED, 3)


GATES = {
    "torch.load without weights_only=True": r"torch\.load\((?![^()]*(\([^()]*\)[^()]*)*weights_only=True)",
    "pickle": r"\b(import|from) +(c?[pP]ickle|dill|cloudpickle|joblib|shelve|marshal)\b|pickle\.load",
    "numpy's pickles": r"allow_pickle=True",
    "eval or exec": r"(?<![\w.])(eval|exec)\(",
    "a shell": r"shell=True|os\.(system|popen)\(",
    "remote code": r"trust_remote_code\s*=\s*(?!False)",
    "yaml": r"yaml\.(unsafe_)?load\(",
    "terminal": r"sys\.std(out|err)\.write\(|(?<![\w.])print\(",
}
TERMINAL_ONLY = "llava"
"""Where text reaches a terminal through `llava.terminal` alone."""


def sources() -> Iterator[Path]:
    """All Python sources that users run."""
    for folder in ("llava", "scripts", "playground", "benchmarks"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def hits(gate: str) -> list[str]:
    """Lines of our sources that a gate is against."""
    found = []
    for file in sources():
        text = file.read_text(encoding="utf-8")
        is_spared = gate == "terminal" and (file.name == "terminal.py" or TERMINAL_ONLY not in file.parts)
        found += (
            [] if is_spared else [f"{file.name}: {one.group()}" for one in re.finditer(GATES[gate], text)]
        )
    return found


@pytest.mark.parametrize("gate", GATES)
def test_sources_hold_nothing_that_runs_strangers_code(gate: str) -> None:
    assert len(list(sources())) > 100
    assert hits(gate) == []


CAUGHT = {
    "torch.load without weights_only=True": "torch.load(file, map_location='cpu')",
    "pickle": "import pickle",
    "numpy's pickles": "np.load(file, allow_pickle=True)",
    "eval or exec": "value = eval(text)",
    "a shell": "subprocess.run(command, shell=True)",
    "remote code": "from_pretrained(folder, trust_remote_code=True)",
    "yaml": "yaml.load(file)",
    "terminal": "print(text)",
}


def test_the_gates_catch_what_they_are_for() -> None:
    assert CAUGHT.keys() == GATES.keys()
    for gate, code in CAUGHT.items():
        assert re.search(GATES[gate], code), gate
    for fine in (
        "torch.load(file, map_location=device(0), weights_only=True)",
        "model.eval()",
        "literal_eval(x)",
    ):
        assert not any(re.search(pattern, fine) for pattern in GATES.values()), fine


def test_scripts_open_no_pickle(
    models: Path, marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault_log: FaultLog
) -> None:
    file = models / FULL / "pytorch_model.bin"
    (models / FULL / "model.safetensors").unlink()
    archive(file, marker)
    with pytest.raises(SystemExit, match="2"):
        extract_mm_projector.main(["--model-path", str(file.parent), "--output", str(tmp_path / "out.bin")])
    assert "pytorch_model.bin holds no tensors" in capsys.readouterr().err
    assert not marker.exists()
    fault_log("pickled code given to a script", "refused, not run", REFUSED)
