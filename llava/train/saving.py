"""Writing what was trained: the whole model, an adapter, or the projector alone, each with all it takes to
open it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from llava.model.checkpoint import write_base_reference, write_config, write_projector, write_weights
from llava.model.key_names import INPUT_EMBEDDINGS, PROJECTOR
from llava.train.checkpoint_files import home_of

logger = logging.getLogger(__name__)

KINDS = ("full", "lora", "projector")


def apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that do not lie within larger ones: on a CPU, what ZeRO-3 gathers are pieces of one buffer,
    which would be refused on saving.
    """
    return {
        key: value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
        for key, value in state.items()
    }


@dataclass(frozen=True)
class CheckpointWriter:
    """`kind` is one of `KINDS`; `base` is the folder an adapter was trained on."""

    kind: str
    tokenizer: PreTrainedTokenizerBase
    image_processor: BaseImageProcessor
    base: Path | None = None

    def write(self, model: nn.Module, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write a checkpoint of the (PEFT-wrapped) model; `state` holds gathered weights under DeepSpeed."""
        folder.mkdir(parents=True, exist_ok=True)
        logger.info("Saving to %s", folder)
        weights = dict(model.state_dict()) if state is None else apart(state)
        if self.kind == "lora":
            model.save_pretrained(
                str(folder), state_dict=weights, safe_serialization=True, save_embedding_layers=False
            )
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
            if self.base is not None:
                write_base_reference(folder, self.base, seen_from=home_of(folder))
        elif self.kind == "projector":
            write_projector(
                {
                    key.removeprefix(PROJECTOR): value
                    for key, value in weights.items()
                    if key.startswith(PROJECTOR)
                },
                folder,
                embeddings=weights[INPUT_EMBEDDINGS] if model.config.mm_use_im_start_end else None,
            )
        else:
            write_weights(weights, folder, tied=model.config.tie_word_embeddings)
        self.write_surroundings(model, folder)

    def write_surroundings(self, model: nn.Module, folder: Path) -> None:
        """Write configuration, tokenizer and image processor."""
        write_config(model.config, folder)
        self.tokenizer.save_pretrained(str(folder))
        self.image_processor.save_pretrained(str(folder))
