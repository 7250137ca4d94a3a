"""Ask one question about one picture or several, and print the answer.

    python -m llava.eval.run_llava --model-path CHECKPOINT --image-file a.png,b.png \\
        --query "<image-placeholder> and <image-placeholder>: what is the difference?"

From Python, as in the original, it is `eval_model(args)` with any object whose attributes are named like the
flags: `eval_model(SimpleNamespace(model_path=..., query="...", image_file="a.png"))`.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from llava import images as picture_files
from llava.command_line import CommandParser
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.answering import add_model_flags, check_model_flags, decoding_of, loading_of, template_of
from llava.eval.picture_bytes import fetch, picture_of
from llava.records import suggestion
from llava.terminal import say_answer

if TYPE_CHECKING:
    from torch import Tensor

REQUIRED = ("model_path", "image_file", "query")


def parser() -> CommandParser:
    """The original's flags, and --seed."""
    options = CommandParser(__doc__.splitlines()[0])
    add_model_flags(options, max_new_tokens=512, required=True)
    add = options.add_argument
    add("--image-file", required=True, help="picture file or http(s) address; several between --sep")
    add("--query", required=True, help=f"the question; {IMAGE_PLACEHOLDER} in it says where a picture goes")
    add("--sep", default=",", help="what stands between several pictures")
    return options


def image_parser(args: Any) -> list[str]:
    """The names of the pictures in `args.image_file`, which stand between `args.sep`."""
    return args.image_file.split(args.sep)


def load_image(image_file: str) -> Image.Image:
    """A picture as RGB, from a file or, when that is what it names, from an http(s) address.

    `UsageError` when it is not there or no picture.
    """
    if image_file.startswith(("http://", "https://")):
        return picture_of(fetch(image_file), image_file)
    path = Path(image_file)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else f"does not exist{suggestion(path)}"
        raise UsageError(f"--image-file {image_file} {found}; name a picture, several between --sep.")
    return picture_files.load_image(path)


def load_images(image_files: Sequence[str]) -> list[Image.Image]:
    """The pictures of these names, see `load_image`."""
    return [load_image(image_file) for image_file in image_files]


def complete(args: Any) -> Namespace:
    """`args` with the flags' defaults for attributes that are missing or None.

    `UsageError` that lists the ones that are needed.
    """
    needed = [text for name in REQUIRED for text in (f"--{name.replace('_', '-')}", "")]
    options = parser().parse(needed)
    for name in vars(options):
        given = getattr(args, name, None)
        if given is not None:
            setattr(options, name, given)
    missing = [name for name in REQUIRED if not getattr(options, name)]
    if missing:
        raise UsageError(f"{', '.join(missing)} not given; needed are {', '.join(REQUIRED)}.")
    if not options.sep:
        raise UsageError("--sep is empty; name what stands between the pictures of --image-file.")
    return options


def check_query(query: str, num_pictures: int) -> None:
    """`UsageError` unless there are as many placeholders as pictures, or none."""
    if DEFAULT_IMAGE_TOKEN in query:
        raise UsageError(
            f"--query holds {DEFAULT_IMAGE_TOKEN}; write {IMAGE_PLACEHOLDER}, or leave it out to have the "
            "pictures come first."
        )
    found = query.count(IMAGE_PLACEHOLDER)
    if found not in (0, num_pictures):
        raise UsageError(
            f"--query holds {IMAGE_PLACEHOLDER} {found} times, but --image-file names {num_pictures}; write "
            "one for each picture, or none to have the pictures come first."
        )


def place_pictures(query: str, num_pictures: int, mark: str) -> str:
    """The query with `mark` for every placeholder; without placeholders a line for each picture in front."""
    if IMAGE_PLACEHOLDER in query:
        return query.replace(IMAGE_PLACEHOLDER, mark)
    return f"{mark}\n" * num_pictures + query


def eval_model(args: Any) -> str:
    """Print the answer to `args.query` about `args.image_file`, and return it.

    `model_path`, `query` and `image_file` are needed; `model_base`, `conv_mode`, `sep`, `temperature`,
    `top_p`, `num_beams` and `max_new_tokens` have the flags' defaults; `model_name` is not used, and sampling
    goes on from torch's random state. `UsageError` for what cannot be used, before the model is loaded.
    """
    options = complete(args)
    check_model_flags(options)
    names = image_parser(options)
    check_query(options.query, len(names))
    answer = answer_about(options, load_images(names))
    say_answer(f"{answer}\n")
    return answer


def answer_about(options: Namespace, pictures: Sequence[Image.Image]) -> str:
    """The model's answer, by the original's calling form: one placeholder per picture in the ids."""
    import torch

    from llava.conversation import render
    from llava.model.builder import load_pretrained_model
    from llava.processing import encode_rendered, picture_mark, process_images
    from llava.tokenizer import decode_text

    loading: Any = loading_of(options)
    tokenizer, model, image_processor, _ = load_pretrained_model(
        options.model_path, options.model_base, **loading
    )
    mark = picture_mark(start_end=model.config.mm_use_im_start_end)
    question = place_pictures(options.query, len(pictures), mark)
    template = template_of(options.conv_mode or model.config.conv_template)
    rendered = render(template, [("human", question), ("gpt", None)])
    encoded = encode_rendered(rendered, tokenizer, num_patches=1, has_image=True)
    ids = torch.tensor([encoded.input_ids], device=model.device)

    def move(pixels: "Tensor") -> "Tensor":
        return pixels.to(model.device, model.dtype)

    pixels = process_images(pictures, image_processor, model.config)
    new_ids: Any = model.generate(
        ids,
        images=[move(one) for one in pixels] if isinstance(pixels, list) else move(pixels),
        image_sizes=[picture.size for picture in pictures],
        attention_mask=torch.ones_like(ids),
        generation_config=decoding_of(options).as_config(tokenizer),
    )
    return decode_text(tokenizer, new_ids[0].tolist()).strip()


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Answer one question."""
    options = parser().parse(argv)
    import torch

    torch.manual_seed(options.seed)
    eval_model(options)


if __name__ == "__main__":
    main()
