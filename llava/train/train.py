"""Train a LLaVA: in full, with LoRA, or the projector only, on a conversation JSON and a folder of pictures.

    python -m llava.train.train --model_name_or_path CHECKPOINT --data_path train.json --image_folder images
    \\
        --lora_enable True --output_dir checkpoints/mine
"""

import sys

from llava.errors import exit_on_usage_error
from llava.train.flags import check_flags


@exit_on_usage_error
def train(argv: list[str] | None = None) -> None:
    """The recipe; flags are checked before anything heavy is imported."""
    argv = sys.argv[1:] if argv is None else argv
    check_flags(argv)

    from llava.train import recipe

    recipe.run(argv)


if __name__ == "__main__":
    train()
