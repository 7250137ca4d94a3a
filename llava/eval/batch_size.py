"""`--batch-size`: a number of questions, or `auto` = as many as the free memory surely holds."""

from pathlib import Path
from typing import Literal

import torch

from llava.eval.batches import Limit
from llava.model.llava import LlavaForCausalLM

BatchSize = int | Literal["auto"]

USED_SHARE = 0.5
"""Of the free memory; the rest is for what is not counted: the vision tower, logits, fragments."""
MOST_ROWS = {"cpu": 64, "cuda": 256}
"""Larger batches are not faster; on a CPU the caches overflow sooner."""
MEMORY_FILE = Path("/proc/meminfo")
"""Where Linux says what can be had, files that it keeps in memory included."""
CPU_MEMORY = 4 << 30
"""Bytes that are counted with where the system does not tell."""


def limit_of(batch_size: BatchSize, model: LlavaForCausalLM) -> Limit:
    """Rows and tokens of a batch."""
    if batch_size != "auto":
        return Limit(batch_size)
    device = model.lm_head.weight.device
    tokens = int(USED_SHARE * free_memory(device)) // bytes_per_token(model)
    return Limit(MOST_ROWS.get(device.type, MOST_ROWS["cpu"]), tokens)


def bytes_per_token(model: LlavaForCausalLM) -> int:
    """Memory of a token in a batch: its keys and values in all layers, and one layer's activations."""
    text = model.config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    groups = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    cached = 2 * text.num_hidden_layers * groups * head
    passing = 8 * text.hidden_size + 3 * getattr(text, "intermediate_size", 4 * text.hidden_size)
    return (cached + passing) * model.lm_head.weight.element_size()


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if MEMORY_FILE.is_file():
        for line in MEMORY_FILE.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return CPU_MEMORY
