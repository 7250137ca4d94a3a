"""Weights are read one by one from their files: lazily, in parts, never twice in memory, and bit for bit."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llava.errors import UsageError
from llava.model import checkpoint, stored_tensors
from llava.model.builder import build, load_full, new_model, open_checkpoint, read_contents
from llava.model.checkpoint import load_strictly, progress_bar, read_files, write_config, write_weights
from llava.model.stored_tensors import Stored, TensorFile, Weights, as_weights, read_tensors
from tests.parity.golden import BASES, golden_folder
from tests.tiny import tiny_config, tiny_model

ROOT = Path(__file__).resolve().parents[3]
KINDS = ("llava-v1.5-tiny", "llava-v1.5-tiny-linear", "llava-v1.5-tiny-imse", "llava-v1.5-tiny-pretrain")


def tensors(count: int = 5) -> dict[str, Tensor]:
    """Tensors of several shapes and types, one of them not in rows."""
    generator = torch.Generator().manual_seed(count)
    found = {f"t{number}": torch.randn(7, number + 1, generator=generator) for number in range(count)}
    return found | {"half": found["t1"].half(), "bits": found["t2"].bfloat16(), "number": torch.tensor(3.5)}


def write(kind: str, values: dict[str, Tensor], folder: Path) -> Path:
    """A weight file of a kind."""
    file = folder / ("model.safetensors" if kind == "safetensors" else "pytorch_model.bin")
    if kind == "safetensors":
        save_file(values, file)
    else:
        torch.save(values, file, _use_new_zipfile_serialization=kind == "archive")
    return file


@pytest.mark.parametrize("kind", ["safetensors", "archive", "old"])
@pytest.mark.parametrize("mapped_bytes", [0, 40, 1 << 20])
def test_files_of_every_kind_give_their_tensors(
    kind: str, mapped_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the mapping is renewed for every tensor, now and then, or never."""
    opened = []
    monkeypatch.setattr(
        stored_tensors, "read_tensors", lambda file: opened.append(file) or read_tensors(file)
    )
    monkeypatch.setattr(stored_tensors, "MAPPED_BYTES", mapped_bytes)
    wanted = tensors()
    weights = TensorFile(write(kind, wanted, tmp_path)).weights()
    assert weights.keys() == wanted.keys()
    for name, value in wanted.items():
        found = weights[name]
        assert found.dtype == value.dtype
        assert torch.equal(found, value)
    mapped = kind != "old"  # files that cannot be mapped are kept, and read once
    assert len(opened) == {0: len(wanted), 40: len(opened), 1 << 20: 1}[mapped_bytes] or not mapped
    assert (len(opened) > 1) == (mapped and mapped_bytes < 1 << 20)


def test_choosing_renaming_and_joining_read_nothing() -> None:
    read: list[str] = []

    def stored(name: str, value: Tensor) -> Stored:
        return Stored(value.to("meta"), lambda: read.append(name) or value)

    values = tensors()
    weights = Weights({name: stored(name, value) for name, value in values.items()})
    joined = weights.renamed({"t1": "a", "t2": "b"}) | {"b": values["t3"]}
    assert set(joined) == {"a", "b"}
    assert "a" in joined
    assert joined.forms()["a"].shape == values["t1"].shape
    assert joined.forms()["b"].shape == values["t3"].shape
    assert not read
    assert torch.equal(joined["a"], values["t1"])
    assert torch.equal(joined["b"], values["t3"]), "the later one counts"
    assert read == ["t1"]


def test_slices_are_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = as_weights({"long": torch.arange(60.0).view(20, 3), "number": torch.tensor(1.0)})
    for limit in (1, 12, 25, 36, 239):
        monkeypatch.setattr(stored_tensors, "MAPPED_BYTES", limit)
        parts = [weights["long"][rows] for rows in weights.slices("long")]
        assert len(parts) > 1
        assert torch.equal(torch.cat(parts), weights["long"])
        assert max(part.nbytes for part in parts) <= max(limit, 12)
        assert weights.slices("number") == [...]


def slow_twin(name: str, dtype: torch.dtype) -> torch.nn.Module:
    """Initialised whole, and overwritten with all tensors at once."""
    base = str(golden_folder(BASES[name])) if name in BASES else None
    contents = read_contents(golden_folder(name), base)
    model = new_model(contents.config, dtype=dtype, attn_implementation=None)
    model.load_state_dict(dict(contents.weights.items()), strict=True)
    return model


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_and_buffers_are_those_of_the_slow_twin(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_tensors, "MAPPED_BYTES", 4096)  # the embeddings come in many parts
    base = str(golden_folder(BASES[name])) if name in BASES else None
    model = build(read_contents(golden_folder(name), base), dtype=dtype, device=torch.device("cpu"))
    wanted = slow_twin(name, dtype)
    for kind in ("named_parameters", "named_buffers"):
        found, theirs = dict(getattr(model, kind)()), dict(getattr(wanted, kind)())
        assert found.keys() == theirs.keys()
        assert found
        for key, value in theirs.items():
            assert not found[key].is_meta
            assert found[key].dtype == value.dtype
            assert found[key].requires_grad == value.requires_grad
            assert torch.equal(found[key], value), key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: weights straight to a GPU are not tried")
def test_a_gpu_gets_the_same_weights_and_buffers() -> None:
    folder = golden_folder(KINDS[0])
    wanted = load_full(folder, dtype=torch.float16)
    model = open_checkpoint(folder, None, dtype=torch.float16, device=torch.device("cuda")).model
    for kind in ("named_parameters", "named_buffers"):
        for key, value in getattr(wanted, kind)():
            found = dict(getattr(model, kind)())[key]
            assert found.is_cuda
            assert torch.equal(found.cpu(), value), key


def test_a_tied_head_stays_tied(tmp_path: Path) -> None:
    model = tiny_model(3)
    config = tiny_config()
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    write_weights(model.state_dict(), tmp_path, tied=True)
    write_config(config, tmp_path)
    again = load_full(tmp_path, dtype=torch.float32)
    assert again.lm_head.weight is again.model.language_model.embed_tokens.weight
    assert torch.equal(again.lm_head.weight, model.model.language_model.embed_tokens.weight)


def test_weights_with_memory_are_overwritten_where_they_are() -> None:
    """As training goes on from its step checkpoints: the optimiser holds these very tensors."""
    model, source = tiny_model(1), tiny_model(2)
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    load_strictly(model, source.state_dict(), tied=False, source=Path("here"))
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == places
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_wrong_shape_is_named_before_anything_is_read(tmp_path: Path) -> None:
    model = tiny_model()
    state = model.state_dict() | {"lm_head.weight": torch.zeros(3, 32)}
    write_weights(state, tmp_path, tied=False)
    write_config(model.config, tmp_path)
    with pytest.raises(UsageError, match=r"language_model.lm_head.weight is \(3, 32\) instead of \(50, 32\)"):
        load_full(tmp_path, dtype=torch.float32)


def test_files_may_change_after_loading(tmp_path: Path) -> None:
    """The model holds copies: a file that is written anew under it must not change or crash it."""
    model = tiny_model(4)
    write_weights(model.state_dict(), tmp_path, tied=False)
    write_config(model.config, tmp_path)
    again = load_full(tmp_path, dtype=torch.float32)
    file = tmp_path / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, tmp_path / "other")
    file.write_bytes((tmp_path / "other").read_bytes())
    os.truncate(file, 100)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


class Terminal(io.StringIO):
    """What tqdm takes for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "rank", "large", "shown"),
    [(True, 0, True, True), (False, 0, True, False), (True, 1, True, False), (True, 0, False, False)],
)
def test_progress_is_shown_for_large_models_on_a_terminal(
    terminal: bool, rank: int, large: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr(checkpoint, "PROGRESS_BYTES", 1000)
    with progress_bar(1000 if large else 999) as bar:
        bar.update(10)
    assert ("Loading weights" in screen.getvalue()) == shown


MEASURED = """
import json, sys, torch
from pathlib import Path
from transformers.models.clip import CLIPVisionModel
from transformers.models.llama import LlamaModel
from benchmarks.record import PeakMemory
from llava.model.builder import build, read_contents
from tests.unit.model.test_stored_tensors import whole

folder, way = sys.argv[1:]
peak = PeakMemory()
peak.start()
load = build if way == "ours" else whole
model = load(read_contents(Path(folder)), dtype=torch.float32)
print(json.dumps([peak.above_start(), sum(weight.nbytes for weight in model.parameters())]))
"""


def whole(contents: object, *, dtype: torch.dtype) -> torch.nn.Module:
    """The way of before, which needs both copies: initialise, read everything, overwrite."""
    model = new_model(contents.config, dtype=dtype, attn_implementation=None)
    model.load_state_dict(dict(contents.weights.items()), strict=True)
    return model


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is known on Linux only")
def test_memory_stays_near_the_weights(tmp_path: Path) -> None:
    """A model of 290 MiB in float32, stored in float16; seen 1.14 (its fixed part, 36 MiB, counts for much
    here; 1.01 for 5 GiB), and 1.5 the other way.
    """
    config = tiny_config()
    config.text_config.hidden_size, config.text_config.intermediate_size = 1024, 2752
    config.text_config.num_hidden_layers, config.text_config.head_dim = 7, 256
    model = new_model(config, dtype=torch.float16, attn_implementation=None, empty=True)
    state = {name: torch.zeros(weight.shape, dtype=weight.dtype) for name, weight in model.named_parameters()}
    write_weights(state, tmp_path, tied=False)
    write_config(config, tmp_path)
    del state
    shares = {}
    for way in ("ours", "whole"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(tmp_path), way],
            env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        peak, size = json.loads(done.stdout.splitlines()[-1])
        assert size > 200 << 20
        shares[way] = peak / size
    assert shares["ours"] < 1.2 < 1.35 < shares["whole"]


def test_shards_are_joined(tmp_path: Path) -> None:
    state = tiny_model(5).state_dict()
    names = sorted(state)
    halves = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, keys in halves.items():
        save_file({key: state[key] for key in keys}, tmp_path / file)
    index = {"weight_map": {key: file for file, keys in halves.items() for key in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = read_files(tmp_path)
    assert set(found) == set(state)
    assert all(torch.equal(found[key], state[key]) for key in state)
