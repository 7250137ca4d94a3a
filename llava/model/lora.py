"""LoRA on the language model's linear layers, through PEFT; the projector is trained beside it, as a full
copy.

Targets are matched by their full path: the vision tower has layers of the same names (q_proj, ...), and stays
untouched.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from llava.errors import UsageError
from llava.model.contents import Adapter
from llava.model.foreign_config import is_number
from llava.model.key_names import differences
from llava.model.weight_files import ADAPTER_CONFIG_NAME

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

    from llava.model.llava import LlavaForCausalLM

PROJECTOR = "multi_modal_projector"
LANGUAGE_MODEL = "model.language_model."
WRAPPED = "base_model.model."
"""What PEFT writes before the names of a model's tensors."""
MAX_RANK = 1 << 16
PLAIN_PATTERN = re.compile(r"\^?[\w.\\]+\$?")
UNSUPPORTED_SETTINGS = (
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "monteclora_config",
    "kasa_config",
    "velora_config",
)
KEPT_SETTINGS = ("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora")
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
    from peft import LoraConfig

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
    wrapped = peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "vision_tower" in name:  # lora_bias "all" would train the tower's biases too
            parameter.requires_grad_(False)
    return wrapped


def peft_model(model: nn.Module, config: "LoraConfig") -> "PeftModel":
    """PEFT's wrapping, without its warning about a name of transformers that only PEFT uses."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return get_peft_model(model, config)


def wrap(model: nn.Module, adapter: Adapter, *, source: Path) -> "PeftModel":
    """Wrap a model with an adapter that was trained elsewhere: exactly the layers that it has tensors for.

    Raises `UsageError` with the name of a tensor that is missing, unexpected or of a wrong shape.
    """
    from peft import LoraConfig

    layers = {re.split(r"\.lora_", key)[0] for key in adapter.weights}
    strangers = layers - {name for name, _ in model.named_modules()}
    if strangers:
        raise UsageError(
            f"{source} holds an adapter for {', '.join(sorted(strangers)[:5])}; no such layer here."
        )
    settings = safe_settings(adapter.settings, source=source)
    stored = max((len(form) for key, form in adapter.weights.forms().items() if ".lora_A." in key), default=0)
    claimed = max(settings.get("r", 1), *settings.get("rank_pattern", {}).values(), 1)
    if claimed > stored:
        raise UsageError(f"the adapter in {source} has rank {stored}, but its settings say {claimed}.")
    pattern = "|".join(re.escape(name) for name in sorted(layers))
    wrapped = peft_model(model, LoraConfig(target_modules=f"({pattern})", task_type="CAUSAL_LM", **settings))
    places = adapter_places(wrapped)
    problem = differences(adapter.weights.forms(), places)
    if problem:
        raise UsageError(f"the adapter in {source} does not fit its settings: {problem}.")
    for key, place in places.items():
        place.data.copy_(adapter.weights[key])
    return wrapped


def safe_settings(settings: dict, *, source: Path) -> dict:
    """The settings of an adapter_config.json that say how it is added; all others are PEFT's for training.

    `UsageError` for a method other than LoRA, a value that cannot be, and an option that would change the
    model in a way that is not supported.
    """
    name = f"{source / ADAPTER_CONFIG_NAME}"
    if settings.get("peft_type") != "LORA":
        raise UsageError(f"{name}: peft_type is {settings.get('peft_type')!r}; only LORA is supported.")
    others = [key for key in UNSUPPORTED_SETTINGS if settings.get(key)]
    if settings.get("init_lora_weights", True) not in (True, False, "gaussian", "orthogonal", "eva"):
        others.append("init_lora_weights")
    if others:
        raise UsageError(f"{name}: {others[0]} is {settings[others[0]]!r}, which is not supported.")
    kept = {key: settings[key] for key in KEPT_SETTINGS if key in settings}
    wrong = [key for key, value in kept.items() if not SETTING_CHECKS[key](value)]
    if wrong:
        raise UsageError(f"{name}: {wrong[0]} is {kept[wrong[0]]!r}, which cannot be; get the file again.")
    return kept


def is_rank(value: object) -> bool:
    """A whole number that a rank may be."""
    return type(value) is int and 1 <= value <= MAX_RANK


def is_pattern(value: object, check: Callable[[object], bool]) -> bool:
    """Plain names of layers to numbers; PEFT takes the names for regular expressions, which may never end."""
    return isinstance(value, dict) and all(
        PLAIN_PATTERN.fullmatch(key) and check(entry) for key, entry in value.items()
    )


SETTING_CHECKS: dict[str, Callable[[object], bool]] = {
    "r": is_rank,
    "lora_alpha": is_number,
    "lora_dropout": lambda value: is_number(value) and 0 <= value < 1,
    "rank_pattern": lambda value: is_pattern(value, is_rank),
    "alpha_pattern": lambda value: is_pattern(value, is_number),
    "use_rslora": lambda value: isinstance(value, bool),
    "use_dora": lambda value: isinstance(value, bool),
}


def adapter_places(wrapped: nn.Module) -> dict[str, Tensor]:
    """The adapter's parameters by our names without PEFT's wrapping: `...q_proj.lora_A.weight`."""
    return {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter
        for name, parameter in wrapped.named_parameters()
        if ".lora_" in name
    }


def merge(wrapped: "PeftModel") -> "LlavaForCausalLM":
    """The model with the adapter added to its weights."""
    return cast("LlavaForCausalLM", wrapped.merge_and_unload())
