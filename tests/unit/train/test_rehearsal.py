"""The rehearsal of saving: what could not be saved, or not opened again, is told before the first step."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Qwen2Config

from llava.errors import UsageError
from llava.images import load_image_processor
from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM
from llava.model.lora import LoraSettings, add_lora
from llava.tokenizer import load_tokenizer
from llava.train.disk_room import (
    SMALL_FILES,
    check_room,
    estimate_saves,
    failed_save_message,
    is_full_disk,
    is_system_error,
)
from llava.train.rehearsal import problems_of_weights, rehearse_saving
from llava.train.saving import KINDS, CheckpointWriter
from tests.faults.manifests import write_checkpoint
from tests.tiny import tiny_model, tiny_text, tiny_vision

BASE = Path(__file__).resolve().parents[3] / "playground" / "mini_world" / "base"
LORA = LoraSettings(rank=2, alpha=4, dropout=0.0)


def writer_of(kind: str) -> CheckpointWriter:
    """A writer with the mini world's tokenizer."""
    base = BASE if kind == "lora" else None
    return CheckpointWriter(kind, load_tokenizer(BASE), load_image_processor(BASE), base)


def model_of(kind: str) -> nn.Module:
    """A tiny model that trains what this kind saves."""
    model = tiny_model()
    if kind == "lora":
        return add_lora(model, LORA)
    if kind == "projector":
        model.requires_grad_(False)
        model.model.multi_modal_projector.requires_grad_(True)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_tell_and_nothing_left(kind: str, tmp_path: Path) -> None:
    rehearse_saving(writer_of(kind), model_of(kind), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_that_train_beside_an_adapter(bias: str, tmp_path: Path) -> None:
    text = tiny_text(Qwen2Config, vocab_size=50, tie_word_embeddings=False)
    config = LlavaConfig(text_config=text, vision_config=tiny_vision())
    model = LlavaForCausalLM._from_config(config, dtype=torch.float32)
    wrapped = add_lora(model, LoraSettings(rank=2, alpha=4, dropout=0.0, bias=bias))
    assert any(weight.requires_grad and name.endswith("bias") for name, weight in wrapped.named_parameters())
    rehearse_saving(writer_of("lora"), wrapped, tmp_path)


def test_a_weight_that_the_adapter_does_not_hold(tmp_path: Path) -> None:
    model = model_of("lora")
    model.get_base_model().lm_head.weight.requires_grad_(True)
    with pytest.raises(UsageError, match=r"lm_head\.weight trains, but the adapter does not hold it"):
        rehearse_saving(writer_of("lora"), model, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_written(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("llava.train.saving.write_config", fails)
    with pytest.raises(UsageError, match=r"could not be saved in .*Input/output error"):
        rehearse_saving(writer_of(kind), model_of(kind), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_would_not_come_back() -> None:
    state = tiny_model().state_dict()
    assert problems_of_weights(state, tied=False) == []
    head, embeddings = "lm_head.weight", "model.language_model.embed_tokens.weight"
    shared = state | {head: state[embeddings]}
    assert problems_of_weights(shared, tied=True) == []
    (problem,) = problems_of_weights(shared, tied=False)
    assert head in problem
    assert "shares its memory" in problem
    assert problems_of_weights(state | {"extra.weight": torch.ones(1)}, tied=False) == [
        "extra.weight has no name on disk"
    ]


@pytest.mark.parametrize(
    ("kind", "engine", "only_model"),
    [(kind, False, False) for kind in KINDS] + [("full", True, False), ("lora", False, True)],
)
def test_estimates_by_hand(kind: str, engine: bool, only_model: bool) -> None:
    """fp32: 4 bytes a weight, AdamW 8 more for those that train; DeepSpeed 12 and the weights again."""
    model = model_of(kind)
    every = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    written = every if kind == "full" else trained
    states = 0 if only_model else 12 * trained + 4 * every if engine else 8 * trained
    size = estimate_saves(model, kind=kind, optimizer="adamw_torch", engine=engine, only_model=only_model)
    assert size.result - SMALL_FILES == 4 * written
    assert size.checkpoint - SMALL_FILES == 4 * written + states


def test_room_is_counted_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = estimate_saves(tiny_model(), kind="full", optimizer="adamw_torch", engine=False, only_model=False)

    def free(count: int) -> None:
        monkeypatch.setattr("llava.train.disk_room.free_bytes", lambda _: count)

    free(size.checkpoint - 1)
    with pytest.raises(UsageError, match="free disk space or name a folder on a larger disk"):
        check_room(tmp_path, size, saves=3, limit=1)
    check_room(tmp_path, size, saves=0, limit=1)
    free(3 * size.checkpoint + size.result)
    check_room(tmp_path, size, saves=3, limit=None)
    check_room(tmp_path, size, saves=100, limit=2)
    assert not caplog.records
    check_room(tmp_path, size, saves=100, limit=None)
    check_room(tmp_path, size, saves=100, limit=3)
    assert len(caplog.records) == 2
    assert "lower --save_total_limit" in caplog.text


def test_a_full_disk_is_recognised_and_told(tmp_path: Path) -> None:
    for error in (
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1 vs 0"),
        ValueError("Error while serializing: I/O error: File too large (os error 27)"),
        "rank 1: [Errno 122] Disk quota exceeded",
    ):
        assert is_full_disk(error)
    assert not is_full_disk(OSError(5, "Input/output error"))
    assert is_system_error(OSError(5, "Input/output error"))
    assert not is_full_disk(RuntimeError("shapes differ"))
    assert not is_system_error(RuntimeError("shapes differ"))
    write_checkpoint(tmp_path / "checkpoint-4", 4)
    (tmp_path / "checkpoint-6").mkdir()
    errors = ["No space left\nmore"]
    message = failed_save_message("checkpoint-8", tmp_path, errors, needed=10**9, free=5 * 10**6)
    for part in (
        "checkpoint-8 could not be saved",
        "No space left.",
        "Free disk space",
        "1.0 GB",
        "5.0 MB",
        "checkpoint-4 is whole",
    ):
        assert part in message
