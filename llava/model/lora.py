"""LoRA on the language model's linear layers, through PEFT; the projector is trained beside it, as a full
copy.

Targets are matched by their full path: the vision tower has layers of the same names (q_proj, ...), and stays
untouched.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from llava.errors import UsageError

if TYPE_CHECKING:
    from peft import PeftModel

PROJECTOR = "multi_modal_projector"
LANGUAGE_MODEL = "model.language_model."
BIAS_CHOICES = ("none", "all", "lora_only")


@dataclass(frozen=True)
class LoraSettings:
    """Rank r, scale alpha / r, dropout on the adapter's input, biases that are trained, and whether the
    projector is.
    """

    rank: int
    alpha: float
    dropout: float
    bias: str = "none"
    train_projector: bool = True


def target_pattern(model: nn.Module) -> str:
    """A pattern that fully matches the paths of all linear layers of the language model (not the head, not
    the tower).
    """
    kinds = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(LANGUAGE_MODEL)
    }
    return rf"model\.language_model\..*\.({'|'.join(sorted(kinds))})"


def add_lora(model: nn.Module, settings: LoraSettings) -> "PeftModel":
    """Wrap the model; only adapter weights (and the projector, if asked) ask for gradients afterwards."""
    from peft import LoraConfig, get_peft_model

    if settings.rank < 1:
        raise UsageError(f"--lora_r is {settings.rank}; it must be at least 1.")
    if settings.bias not in BIAS_CHOICES:
        raise UsageError(f"--lora_bias is {settings.bias!r}; use one of {', '.join(BIAS_CHOICES)}.")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        bias=settings.bias,
        target_modules=target_pattern(model),
        modules_to_save=[PROJECTOR] if settings.train_projector else None,
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "vision_tower" in name:  # lora_bias "all" would train the tower's biases too
            parameter.requires_grad_(False)
    return wrapped
