"""Write the projector of a checkpoint as a mm_projector.bin, for --pretrain_mm_mlp_adapter.

    python scripts/extract_mm_projector.py --model-path CHECKPOINT --output FOLDER/mm_projector.bin

Any layout is read: whole models, adapters with their projector, and the original's non_lora_trainables.bin.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.model.locations import find_folder
from llava.model.weight_files import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_WEIGHTS_NAME,
    NON_LORA_NAME,
    PROJECTOR_NAME,
    has_weights,
)

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

PROJECTOR = "multi_modal_projector."


def parser() -> CommandParser:
    """The original's flags; its second name for --model-path too."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--model-path", "--model_name_or_path", required=True, help="checkpoint folder")
    options.add_argument("--output", required=True, help="file to write, most often mm_projector.bin")
    return options


def projector_of(folder: Path) -> dict[str, "Tensor"]:
    """The projector's tensors by our names: `linear_1.weight`, ...; `UsageError` when there are none."""
    from llava.model.builder import read_contents
    from llava.model.checkpoint import read_projector
    from llava.model.stored_tensors import read_tensors

    for name in (NON_LORA_NAME, PROJECTOR_NAME):
        if (folder / name).is_file() and not has_weights(folder):
            return read_projector(folder / name)
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        tensors = read_tensors(folder / ADAPTER_WEIGHTS_NAME)
    else:
        tensors = read_contents(folder).weights
    found = {key.split(PROJECTOR)[1]: tensors[key] for key in tensors if PROJECTOR in key}
    if not found:
        raise UsageError(f"{folder} holds no projector; name a LLaVA, or an adapter that trained one.")
    return found


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parser().parse(argv)
    from llava.model.checkpoint import write_projector

    output = Path(arguments.output).resolve()
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; name a file, such as {output / PROJECTOR_NAME}.")
    write_projector(projector_of(find_folder(arguments.model_path)), output.parent, output.name)
    logger.info("Wrote %s", output)


if __name__ == "__main__":
    main()
