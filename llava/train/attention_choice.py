"""Which attention code the language model trains with. FlexAttention must prove itself first, on this card.

It is compiled where it runs, so whether it works there (Triton, the card, the heads' width) is known only by
trying: one small pack of each of a few sizes, forwards and backwards, beside SDPA under the dense mask.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig

from llava.model.attention import attention_mask_for, dense_mask
from llava.model.llava import LlavaForCausalLM
from llava.model.prefix_attention import NAME as TWO_PART
from llava.train.arguments import TrainingArguments

logger = logging.getLogger(__name__)

FLEX = "flex_attention"
PACKS = ((2, 384), (3, 640), (2, 896), (4, 512))
"""Rows and tokens of the packs that are tried; torch makes a size dynamic when it first changes."""
WARM_UP = 3
"""Packs after which nothing may be compiled any more."""
ALLOWED = {torch.float32: 1e-2, torch.bfloat16: 6e-2, torch.float16: 2e-2}
"""Largest difference, relative to the largest entry: products are rounded to TF32, or to the type itself."""

Attention = Callable[..., tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Trial:
    """Heads of a language model, and the type and device that it trains in."""

    heads: int
    key_heads: int
    width: int
    dtype: torch.dtype
    device: torch.device


def set_attention(model: LlavaForCausalLM, args: TrainingArguments) -> None:
    """Set the language model's attention to that of `--attn_implementation`."""
    language_model = model.model.language_model
    language_model.set_attn_implementation(choose_attention(language_model.config, args))


def choose_attention(config: PretrainedConfig, args: TrainingArguments) -> str:
    """The flag, or for `auto`: two parts on a CPU, FlexAttention on CUDA if it works there, else SDPA.

    SDPA too where every sample has a row of its own, and where whole layers are compiled.
    """
    if args.attn_implementation != "auto":
        return args.attn_implementation
    if args.compile_layers:
        return "sdpa"
    if args.device.type == "cpu":
        return TWO_PART
    if args.device.type != "cuda" or args.packing == "none":
        return "sdpa"
    obstacle = obstacle_of_flex(trial_of(config, args))
    if obstacle is None:
        return FLEX
    logger.warning("FlexAttention is not used: %s. SDPA computes all pairs of a row instead.", obstacle)
    return "sdpa"


def trial_of(config: PretrainedConfig, args: TrainingArguments) -> Trial:
    """What a run's attention is made of."""
    heads = config.num_attention_heads
    dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Trial(heads, getattr(config, "num_key_value_heads", None) or heads, width, dtype, args.device)


def obstacle_of_flex(trial: Trial, attention: Attention | None = None, name: str = FLEX) -> str | None:
    """Why FlexAttention cannot be used here, None if it gives what SDPA gives and stops compiling.

    `attention` and `name` put another implementation in its place.
    """
    from torch._dynamo.utils import counters

    attention = attention or AttentionInterface()[name]
    graphs = []
    for number, (rows, length) in enumerate(PACKS):
        try:
            difference = difference_of(trial, attention, name, rows=rows, length=length, seed=number)
        except Exception as error:  # a compiler may raise anything
            return f"it failed ({type(error).__name__}: {str(error).strip().splitlines()[0][:200]})"
        if not difference <= ALLOWED[trial.dtype]:
            return f"its numbers differ from SDPA's by {difference:.2g}"
        graphs.append(counters["stats"]["unique_graphs"])
    if graphs[-1] > graphs[WARM_UP - 1]:
        return "it is compiled anew for every size of batch"
    return None


def difference_of(
    trial: Trial, attention: Attention, name: str, *, rows: int, length: int, seed: int
) -> float:
    """Largest difference between an implementation and SDPA in outputs and gradients, relative."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, count, length, trial.width) for count in (trial.heads, *[trial.key_heads] * 2)]
    numbers = [torch.randn(shape, generator=generator).to(trial.device, trial.dtype) for shape in shapes]
    groups, branches = (part.to(trial.device) for part in some_pack(rows, length))
    module = nn.Module().train()
    module.is_causal, module.num_key_value_groups = True, trial.heads // trial.key_heads
    found = results(
        attention, module, numbers, attention_mask_for(name, groups, branches, dtype=trial.dtype), trial
    )
    wanted = results(AttentionInterface()["sdpa"], module, numbers, dense_mask(groups, branches), trial)
    return max(
        float((first - second).abs().max() / second.abs().max())
        for first, second in zip(found, wanted, strict=True)
    )


def results(
    attention: Attention, module: nn.Module, numbers: Sequence[Tensor], mask: object, trial: Trial
) -> list[Tensor]:
    """Output (B, T, H, d) and the gradients of query, key and value, in fp32."""
    leaves = [number.detach().requires_grad_() for number in numbers]
    output, _ = attention(module, *leaves, mask, scaling=trial.width**-0.5, dropout=0.0)
    (output.float() * torch.linspace(-1, 1, trial.width, device=trial.device)).sum().backward()
    return [output.detach().float(), *(leaf.grad.float() for leaf in leaves)]


def some_pack(rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Group and branch numbers (B, T) of packs with groups of a prefix of 100 tokens and branches of 30."""
    places = torch.arange(length).expand(rows, -1) + 17 * torch.arange(rows)[:, None]
    within = places % 220
    return places // 220, torch.where(within < 100, 0, 1 + (within - 100) // 30)
