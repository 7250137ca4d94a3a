"""What a run goes on from is looked at before it is opened: no file may bring code of its own."""

from pathlib import Path

from torch.serialization import get_unsafe_globals_in_checkpoint
from transformers.trainer_pt_utils import safe_globals

from llava.errors import UsageError

SUFFIXES = (".pt", ".pth", ".bin")
NEVER_READ = ("training_args.bin",)
REMEDY = "it is not opened. Remove this checkpoint, to go on from the one before it."


def refuse_pickled_code(checkpoint: Path) -> None:
    """`UsageError` that names a file of a `checkpoint-N` which would run code when it is unpickled.

    DeepSpeed's own files lie in a folder below, and it unpickles them as they are: go on only from a folder
    that your own run wrote.
    """
    for file in sorted(checkpoint.iterdir()):
        if file.suffix not in SUFFIXES or file.name in NEVER_READ or not file.is_file():
            continue
        try:
            with safe_globals():
                found = get_unsafe_globals_in_checkpoint(str(file))
        except Exception as error:  # whatever is no archive of torch.save
            first_line = str(error).partition("\n")[0]
            raise UsageError(f"{file} is no file of torch.save ({first_line}); {REMEDY}") from None
        if found:
            raise UsageError(f"{file} holds pickled code ({', '.join(sorted(found)[:3])}); {REMEDY}")
