"""Hostile weight files, indexes and adapters: no lie in them is believed."""

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llava.model.stored_tensors import TensorFile
from tests.faults.conftest import REFUSED, FaultLog
from tests.faults.hostile_models import (
    HUGE,
    LANGUAGE_MODEL,
    LORA,
    NAN,
    Changed,
    mutated,
    refusal,
    refusal_of,
    values_of,
)

INDEXES: list[Any] = [
    {}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"a": 3}},
    {"weight_map": {"a": "../x.safetensors"}},
    {"weight_map": {"a": "/etc/passwd"}}, {"weight_map": {"a": "C:\\x.safetensors\0"}},
    {"weight_map": "evil"},
    {"weight_map": {"a": "http://127.0.0.1/x.safetensors"}}, {"weight_map": {"a": "x.pkl"}},
    {"weight_map": {"a": "config.json"}}, {"weight_map": {"a": "missing.safetensors"}},
    {"weight_map": {"a": ""}},
]  # fmt: skip


def test_an_index_leads_nowhere_else(ours: Path, fault_log: FaultLog) -> None:
    weights = (ours / "model.safetensors").rename(ours / "kept")
    try:
        for index in INDEXES:
            with Changed(ours / "model.safetensors.index.json", index):
                told = refusal(ours)
            assert told is not None, index
            assert "index.json" in told, index
    finally:
        weights.rename(ours / "model.safetensors")
    fault_log("an index of shards that names other files", "refused", REFUSED, len(INDEXES))


ADAPTERS = [
    ("r", HUGE), ("r", 0), ("r", -1), ("r", "8"), ("r", 1.5), ("r", 4096), ("lora_alpha", NAN),
    ("lora_alpha", "x"),
    ("lora_dropout", 2), ("rank_pattern", {"(a+)+$": 4}), ("rank_pattern", {"q_proj": HUGE}),
    ("alpha_pattern", 3),
    ("rank_pattern", {"q_proj": 4096}), ("use_dora", "yes"), ("peft_type", "PROMPT_TUNING"), ("peft_type", 3),
    ("peft_type", None), ("layer_replication", [[0, 10**9]]), ("init_lora_weights", "pissa"),
    ("arrow_config", {"a": 1}),
    ("trainable_token_indices", [1]), ("base_model_name_or_path", 3), ("target_parameters", ["a"]),
]  # fmt: skip
HARMLESS = {
    "megatron_config": {"a": 1}, "megatron_core": "evil", "auto_mapping": {"parent_library": "evil"},
    "tokenizer_kwargs": {"trust_remote_code": True}, "target_modules": "(.*)*(.*)*(.*)*x",
    "exclude_modules": "(a+)+$",
    "modules_to_save": ["evil"], "loftq_config": {"a": 1}, "runtime_config": {"a": 1}, "peft_version": "evil",
}  # fmt: skip


def test_adapters_that_cannot_be(originals: Path, little_memory: None, fault_log: FaultLog) -> None:
    file = originals / LORA / "adapter_config.json"
    base = originals / LANGUAGE_MODEL
    for name, value in ADAPTERS:
        with Changed(file, values_of(file) | {name: value}):
            assert refusal(originals / LORA, base if name != "base_model_name_or_path" else None), (
                name,
                value,
            )
    with Changed(file, values_of(file) | HARMLESS):
        assert refusal(originals / LORA, base) is None
    fault_log("adapter_config.json that cannot be", "refused", REFUSED, len(ADAPTERS))


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and data."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def mutated_file(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file with a lie in its header, its length, or its end."""
    kind = rng.randrange(5)
    if kind == 0:  # any byte of the length or the header
        place = rng.randrange(0, min(2000, len(content)))
        return content[:place] + rng.randbytes(rng.randrange(1, 4)) + content[place + 1 :]
    if kind == 1:
        return content[: rng.randrange(len(content))]
    if kind == 2:
        length = rng.choice([0, 1, 7, 2**63, 2**64 - 1, 10**8 + 1, len(content), rng.randrange(10**6)])
        return struct.pack("<Q", length) + content[8:]
    header, data = header_of(content)
    name = rng.choice(list(header))
    if kind == 3 and isinstance(header[name], dict) and "shape" in header[name]:
        entry = header[name]
        wrong = {
            "shape": [[HUGE, HUGE], [-1], [], [2**63], [1.5], "8", [0], [*entry["shape"], 1], [2**32, 2**32]],
            "data_offsets": [
                [0, 0],
                [0, 2**63],
                [-8, 8],
                [8, 0],
                "x",
                [0],
                [0, len(data)],
                [len(data), 2**40],
            ],
            "dtype": ["F64", "I8", "BOOL", "C64", "F4", "F8_E4M3", "U64", "evil", 3, None, "BF16"],
        }
        key = rng.choice(list(wrong))
        header = header | {name: entry | {key: rng.choice(wrong[key])}}
    else:
        header = mutated(header, rng)
    text = json.dumps(header).encode("utf-8", "replace")
    return struct.pack("<Q", len(text)) + text + data + rng.randbytes(rng.choice([0, 0, 0, 5]))


@pytest.fixture
def small_weights(tmp_path: Path) -> Path:
    file = tmp_path / "weights.safetensors"
    save_file({f"layer.{number}": torch.rand(8, 4) for number in range(12)}, file, metadata={"format": "pt"})
    return file


def check_bytes(file: Path) -> None:
    """All tensors are read, and are no larger than the file."""
    weights = TensorFile(file).weights()
    assert sum(form.nbytes for form in weights.forms().values()) <= file.stat().st_size
    assert sum(value.clone().nbytes for value in weights.values()) <= file.stat().st_size


def test_a_thousand_lying_headers(small_weights: Path, little_memory: None, fault_log: FaultLog) -> None:
    """A file that opens all the same holds no more than its bytes."""
    content, rng, refused, opened = small_weights.read_bytes(), random.Random(0), 0, 0
    for _ in range(1000):
        small_weights.write_bytes(mutated_file(content, rng))
        told = refusal_of(lambda: check_bytes(small_weights))
        opened, refused = opened + (told is None), refused + (told is not None)
        assert told is None or "weights.safetensors" in told
    assert refused > 700, "most mutations must be lies"
    assert opened > 5, "some must be none"
    fault_log("a safetensors file with a mutated header", "refused, or within its bytes", REFUSED, 1000)


def test_lying_headers_of_a_whole_model(ours: Path, little_memory: None, fault_log: FaultLog) -> None:
    content, rng = (ours / "model.safetensors").read_bytes(), random.Random(1)
    found = []
    for _ in range(60):
        with Changed(ours / "model.safetensors", mutated_file(content, rng)):
            found.append(refusal(ours))
    assert sum(told is not None for told in found) > 50
    fault_log("the same, of a whole model", "refused by name", REFUSED, len(found))
