"""Compare a written checkpoint with the model it was made of, in a process that knows nothing but its folder.

    python -m llava.model.check_export --folder OUT --to hf --expected expected.safetensors

`llava.model.export` runs it. The three inputs are a text, a picture with a question, and two turns about it.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from llava.command_line import CommandParser
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.conversation import TEMPLATES, Turn, render
from llava.errors import UsageError, exit_on_usage_error
from llava.terminal import say

if TYPE_CHECKING:
    from torch import Tensor

LAYOUTS = ("hf", "llava")
LOGITS_ATOL = 1e-3
"""float32: worst seen 0 (the same operations, tiny models); cropped pictures give 9."""
PICTURE_SIZE = (61, 40)
PROBES: tuple[tuple[Turn, ...], ...] = (
    (("human", "Name three colours."), ("gpt", None)),
    (("human", "<image>\nWhat is in this picture?"), ("gpt", None)),
    (
        ("human", "<image>\nWho is this?"),
        ("gpt", "This is Anna."),
        ("human", "What does she wear?"),
        ("gpt", None),
    ),
)


def probe_picture() -> Image.Image:
    """A picture with edges and gradients that is not square."""
    width, height = PICTURE_SIZE
    image = Image.new("RGB", PICTURE_SIZE)
    image.putdata(
        [(4 * x, 6 * y, 255 * ((x // 8 + y // 8) % 2)) for y in range(height) for x in range(width)]
    )
    return image


def outputs_here(tokenizer: Any, model: Any, image_processor: Any) -> dict[str, "Tensor"]:
    """Ids (one -200 per patch) and logits of the three inputs, as this package makes them."""
    import torch

    from llava.processing import encode_rendered, picture_mark, process_images

    config = model.config
    picture = probe_picture()
    pixels = process_images([picture], image_processor, config)
    mark = picture_mark(start_end=config.mm_use_im_start_end)
    found = {}
    for number, turns in enumerate(PROBES):
        turns = [(role, text and text.replace(DEFAULT_IMAGE_TOKEN, mark)) for role, text in turns]
        rendered = render(TEMPLATES[config.conv_template], turns)
        counts = [config.num_image_tokens(picture.size)] * rendered.text.count(DEFAULT_IMAGE_TOKEN)
        encoded = encode_rendered(rendered, tokenizer, num_patches=counts, has_image=True)
        ids = torch.tensor([encoded.input_ids])
        with torch.no_grad():
            features = model.picture_features(pixels, [picture.size]) if counts else None
            logits = model(input_ids=ids, image_features=features).logits
        found |= {f"{number}.ids": ids, f"{number}.logits": logits.float()}
    return found


def as_messages(turns: Sequence[Turn]) -> list[dict[str, object]]:
    """Closed turns in the form that processors of transformers take."""
    messages = []
    for role, text in turns:
        if text is None:
            continue
        words = text.removeprefix(f"{DEFAULT_IMAGE_TOKEN}\n")
        content = [{"type": "image"}] if words != text else []
        content.append({"type": "text", "text": words})
        messages.append({"role": "user" if role == "human" else "assistant", "content": content})
    return messages


def outputs_of_transformers(folder: Path) -> dict[str, "Tensor"]:
    """The same by transformers alone: its model, its processor, the folder's chat template."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    loader: Any = LlavaForConditionalGeneration
    model, report = loader.from_pretrained(str(folder), dtype=torch.float32, output_loading_info=True)
    wrong = {name: sorted(map(str, keys)) for name, keys in report.items() if keys}
    if wrong:
        raise UsageError(f"transformers reads other tensors in {folder} than it wants: {wrong}")
    processor: Any = AutoProcessor.from_pretrained(str(folder), backend="pil")
    found = {}
    for number, turns in enumerate(PROBES):
        messages = as_messages(turns)
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        pictures = [probe_picture()] if DEFAULT_IMAGE_TOKEN in prompt else None
        inputs = processor(text=prompt, images=pictures, return_tensors="pt")
        with torch.no_grad():
            logits = model.eval()(**inputs).logits
        ids = inputs["input_ids"]
        ids = torch.where(ids == model.config.image_token_index, IMAGE_TOKEN_INDEX, ids)
        found |= {f"{number}.ids": ids, f"{number}.logits": logits.float()}
    return found


def compare(found: dict[str, "Tensor"], wanted: dict[str, "Tensor"], folder: Path) -> float:
    """The largest difference of a logit; `UsageError` where ids differ or that is too large."""
    import torch

    worst = 0.0
    for number in range(len(PROBES)):
        ids, wanted_ids = found[f"{number}.ids"], wanted[f"{number}.ids"]
        if not torch.equal(ids, wanted_ids):
            raise UsageError(
                f"{folder} gives other token ids for input {number}: {ids[0].tolist()} instead of "
                f"{wanted_ids[0].tolist()}."
            )
        logits = wanted[f"{number}.logits"]
        difference = (found[f"{number}.logits"][..., : logits.shape[-1]] - logits).abs().max()
        worst = max(worst, float(difference.nan_to_num(nan=torch.inf)))
    if worst > LOGITS_ATOL:
        raise UsageError(
            f"{folder} gives other logits: they differ by up to {worst:.2g}, allowed is {LOGITS_ATOL}."
        )
    return worst


def check(arguments: Namespace) -> float:
    """Open the folder and compare."""
    import torch
    from safetensors.torch import load_file

    from llava.model.builder import load_pretrained_model

    folder = Path(arguments.folder)
    if arguments.to == "hf":
        found = outputs_of_transformers(folder)
    else:
        opened = load_pretrained_model(str(folder), device="cpu", dtype=torch.float32)
        found = outputs_here(*opened[:3])
    return compare(found, load_file(arguments.expected), folder)


def parser() -> CommandParser:
    """All flags are needed."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--folder", required=True, help="checkpoint to open")
    options.add_argument("--to", required=True, choices=LAYOUTS, help="its layout")
    options.add_argument("--expected", required=True, help="ids and logits of the model it was made of")
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    say(json.dumps({"worst": check(parser().parse(argv))}) + "\n")


if __name__ == "__main__":
    main()
