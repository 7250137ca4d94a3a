"""Train a LLaVA: in full, with LoRA, or the projector only, on a conversation JSON and a folder of pictures.

    python -m llava.train.train --model_name_or_path CHECKPOINT --data_path train.json \\
        --image_folder images --lora_enable True --output_dir checkpoints/mine
"""

import sys
from pathlib import Path

if not __package__:  # started by its path: the package around it is meant, and no module of this folder
    HERE = Path(__file__).resolve().parent
    others = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    sys.path[:] = [str(HERE.parents[1]), *others]

from llava.errors import exit_on_usage_error
from llava.train.exit_codes import code_is_left
from llava.train.flags import check_flags


@exit_on_usage_error
def train(argv: list[str] | None = None, *, attn_implementation: str | None = None) -> None:
    """The recipe; flags are checked before anything heavy is imported.

    `argv` are flags (default: this process's). `attn_implementation` is for programs that call the original's
    function: the value of --attn_implementation, `flash_attention_2` being `auto`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if attn_implementation is not None:
        chosen = "auto" if attn_implementation == "flash_attention_2" else attn_implementation
        argv += ["--attn_implementation", chosen]
    check_flags(argv)

    from llava.train import recipe

    recipe.run(argv)


if __name__ == "__main__":
    with code_is_left():
        train()
