"""Names of tensors in memory and on disk: one two-way table per format, applied to the start of a key.

Ours is the layout of the llava-hf checkpoints, which transformers, vLLM and the converters read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class KeyTable:
    """Pairs of (start in memory, start on disk), most particular first."""

    pairs: tuple[tuple[str, str], ...]

    def to_disk(self, key: str) -> str:
        """The name in a file of a tensor in memory; `KeyError` when the table does not know it."""
        return replace_start(key, self.pairs)

    def to_memory(self, key: str) -> str:
        """The name in memory of a tensor in a file; `KeyError` when the table does not know it."""
        return replace_start(key, tuple((disk, memory) for memory, disk in self.pairs))


def replace_start(key: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The key with the first matching start replaced."""
    for old, new in pairs:
        if key.startswith(old):
            return new + key[len(old) :]
    raise KeyError(key)


OURS = KeyTable(
    (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    )
)


def original_projector_key(key: str) -> str:
    """`linear_2.weight` to the original LLaVA's `2.weight` (layers and activations are counted from 0)."""
    number, _, kind = key.removeprefix("linear_").partition(".")
    return f"{2 * (int(number) - 1)}.{kind}"


def projector_key(original: str) -> str:
    """The original LLaVA's `2.weight` to `linear_2.weight`; a lone `weight` or `bias` is a linear
    projector's.
    """
    if original in ("weight", "bias"):
        return f"linear_1.{original}"
    number, _, kind = original.partition(".")
    return f"linear_{int(number) // 2 + 1}.{kind}"


def differences(found: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    """One sentence on missing and unexpected keys, empty when there are none (five names of each)."""
    parts = []
    for title, keys in (
        ("missing", sorted(set(wanted) - set(found))),
        ("unexpected", sorted(set(found) - set(wanted))),
    ):
        if keys:
            parts.append(f"{len(keys)} {title} ({', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''})")
    return " and ".join(parts)
