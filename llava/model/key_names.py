"""Names of tensors in memory and on disk: one two-way table per format, applied to the start of a key.

Ours is the layout of the llava-hf checkpoints, which transformers, vLLM and the converters read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from llava.model.projector import projector_depth


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


NEWLINE = "model.image_newline"
"""The vector at the end of a row of patches (LLaVA-1.6), in memory and in the original's files."""

PROJECTOR = "model.multi_modal_projector."
"""The start of the projector's names in memory."""
INPUT_EMBEDDINGS = "model.language_model.embed_tokens.weight"
HEAD = "lm_head.weight"
"""The two tensors with a row for each token, in memory."""

OURS = KeyTable(
    (
        (NEWLINE, "image_newline"),
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        (PROJECTOR, "multi_modal_projector."),
    )
)

HF_FLAT_TOWER = KeyTable(
    (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower."),
        (PROJECTOR, "multi_modal_projector."),
    )
)
"""transformers, of a model that was built from a configuration or from parts."""

HF_NESTED = KeyTable(
    (
        ("model.language_model.", "model.language_model."),
        ("lm_head.", "lm_head."),
        ("model.vision_tower.", "model.vision_tower.vision_model."),
        (PROJECTOR, PROJECTOR),
    )
)
"""transformers from 4.52 on."""

HF_NESTED_FLAT_TOWER = KeyTable(
    (
        ("model.language_model.", "model.language_model."),
        ("lm_head.", "lm_head."),
        ("model.vision_tower.", "model.vision_tower."),
        (PROJECTOR, PROJECTOR),
    )
)
"""transformers 5, with the names that the modules have in memory."""

PLAIN_LANGUAGE_MODEL = KeyTable((("model.language_model.", "model."), ("lm_head.", "lm_head.")))
"""A causal language model of transformers by itself."""


def hf_table(keys: Iterable[str]) -> KeyTable:
    """Which of transformers' layouts names these tensors: it depends on how the model came to be."""
    keys = tuple(keys)
    nested = any(key.startswith("model.language_model.") for key in keys)
    prefix = "model.vision_tower." if nested else "vision_tower."
    if any(key.startswith(f"{prefix}vision_model.") for key in keys):
        return HF_NESTED if nested else OURS
    return HF_NESTED_FLAT_TOWER if nested else HF_FLAT_TOWER


def original_table(projector_type: str) -> KeyTable:
    """The original LLaVA's layout; the projector's layers are numbered with their activations, from 0."""
    ours, theirs = PROJECTOR, "model.mm_projector."
    projector = [
        (f"{ours}linear_{layer}.", f"{theirs}{2 * (layer - 1)}.")
        for layer in range(1, projector_depth(projector_type) + 1)
    ]
    if projector_type == "linear":
        projector = [(f"{ours}linear_1.", theirs)]
    return KeyTable(
        (
            *projector,
            (NEWLINE, NEWLINE),
            ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
            ("model.language_model.", "model."),
            ("lm_head.", "lm_head."),
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


def differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """One sentence on missing, unexpected and wrongly shaped tensors, empty when there are none (five of
    each).
    """
    shapes = [
        f"{key} is {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in sorted(set(wanted) & set(found))
        if found[key].shape != wanted[key].shape
    ]
    parts = []
    for title, entries in (
        ("missing", sorted(set(wanted) - set(found))),
        ("unexpected", sorted(set(found) - set(wanted))),
        ("of a wrong shape", shapes),
    ):
        if entries:
            more = ", ..." if len(entries) > 5 else ""
            parts.append(f"{len(entries)} {title} ({', '.join(entries[:5])}{more})")
    return " and ".join(parts)
