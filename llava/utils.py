"""Small helpers under the names that other people's code imports from the original LLaVA; free of torch."""

from pathlib import PurePath


def get_model_name_from_path(model_path: str) -> str:
    """The last part of a path, with the part before it when it is a step's checkpoint: run_checkpoint-100."""
    path = PurePath(model_path.strip("/"))
    if path.name.startswith("checkpoint-") and path.parent.name:
        return f"{path.parent.name}_{path.name}"
    return path.name


def disable_torch_init() -> None:
    """Nothing. The original skipped drawing weights that are overwritten; transformers does so by itself."""
