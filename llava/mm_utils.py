"""The names that other people's code imports from the original LLaVA; what they do lives elsewhere."""

from llava.anyres import (
    divide_to_patches,
    get_anyres_image_grid_shape,
    resize_and_pad_image,
    select_best_resolution,
    unpad_image,
)
from llava.chat_images import load_image_from_base64
from llava.images import expand2square, process_anyres_image, process_images
from llava.processing import tokenizer_image_token
from llava.stopping import KeywordsStoppingCriteria
from llava.utils import get_model_name_from_path

__all__ = [
    "KeywordsStoppingCriteria",
    "divide_to_patches",
    "expand2square",
    "get_anyres_image_grid_shape",
    "get_model_name_from_path",
    "load_image_from_base64",
    "process_anyres_image",
    "process_images",
    "resize_and_pad_image",
    "select_best_resolution",
    "tokenizer_image_token",
    "unpad_image",
]
