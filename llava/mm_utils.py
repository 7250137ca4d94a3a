"""The names that other people's code imports from the original LLaVA; what they do lives elsewhere."""

import base64
from io import BytesIO
from pathlib import PurePath

from PIL import Image

from llava.images import expand2square, process_images
from llava.processing import tokenizer_image_token

__all__ = [
    "expand2square",
    "get_model_name_from_path",
    "load_image_from_base64",
    "process_images",
    "tokenizer_image_token",
]


def get_model_name_from_path(model_path: str) -> str:
    """The last part of a path, with the part before it when it is a step's checkpoint: run_checkpoint-100."""
    path = PurePath(model_path.strip("/"))
    if path.name.startswith("checkpoint-") and path.parent.name:
        return f"{path.parent.name}_{path.name}"
    return path.name


def load_image_from_base64(image: str) -> Image.Image:
    """A picture from base64 text."""
    return Image.open(BytesIO(base64.b64decode(image)))
