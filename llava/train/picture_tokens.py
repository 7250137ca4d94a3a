"""The options mm_use_im_start_end and mm_use_im_patch_token: tokens that a language model lacks are added to
it.

As in the original a new row of the input and output embeddings is the mean of the old ones. In the projector
stage the input embeddings train beside the projector, and both are saved in `mm_projector.bin`.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedTokenizerFast

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.errors import UsageError
from llava.model.checkpoint import EMBEDDINGS
from llava.model.stored_tensors import read_tensors

if TYPE_CHECKING:
    from llava.model.llava import LlavaForCausalLM

logger = logging.getLogger(__name__)

START_END = (DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN)


def missing_tokens(tokenizer: PreTrainedTokenizerFast, *, patch: bool, start_end: bool) -> list[str]:
    """The tokens of the two options that the tokenizer does not have."""
    wanted = [*([DEFAULT_IMAGE_PATCH_TOKEN] if patch else []), *(START_END if start_end else [])]
    return [token for token in wanted if token not in tokenizer.get_vocab()]


def add_tokens(model: "LlavaForCausalLM", tokenizer: PreTrainedTokenizerFast, tokens: list[str]) -> None:
    """Append tokens to the tokenizer and rows to the embeddings, each the mean of the rows before.

    Rows that the model has beyond its tokenizer are used before new ones are made; none is ever taken away.
    """
    first = len(tokenizer)
    tokenizer.add_tokens(tokens, special_tokens=True)
    last = len(tokenizer)
    if last > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(last, mean_resizing=False)
        model.config.text_config.vocab_size = last
        model.model.language_model.config.vocab_size = last
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[first:last] = layer.weight[:first].float().mean(dim=0).to(layer.weight.dtype)
    logger.info("Added to the vocabulary: %s (now %d tokens).", ", ".join(tokens), last)


def load_start_end_rows(model: "LlavaForCausalLM", tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    """Take the input embeddings of the start and end tokens from a projector file, where it has them.

    It holds the whole matrix (what the projector stage writes) or just their two rows. `UsageError` for
    another shape.
    """
    stored = read_tensors(file).get(EMBEDDINGS)
    if stored is None:
        logger.warning(
            "%s has no embeddings of %s: theirs stay as they are (if they are new, the mean of all others).",
            file,
            " and ".join(START_END),
        )
        return
    weight = model.get_input_embeddings().weight
    ids = tokenizer.convert_tokens_to_ids(list(START_END))
    if stored.shape == weight.shape:
        stored = stored[ids]
    elif stored.shape != (len(ids), weight.shape[1]):
        raise UsageError(
            f"{file} holds embeddings of {tuple(stored.shape)}; wanted are all {tuple(weight.shape)} of "
            f"this language model, or the {len(ids)} rows of {' and '.join(START_END)}. Use the file that "
            "was trained with this language model."
        )
    with torch.no_grad():
        weight[ids] = stored.to(weight.dtype)
