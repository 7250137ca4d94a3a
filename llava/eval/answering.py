"""What the answering programs share: their flags, chunks, and the way from questions to an answers file.

The programs differ in the file that they read; this module imports torch only when the model is loaded.
"""

import math
import os
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.command_line import CommandParser
from llava.conversation import TEMPLATES, Template, render
from llava.errors import UsageError
from llava.eval.questions import Question
from llava.images import image_size, load_image
from llava.terminal import note

if TYPE_CHECKING:
    from PIL.Image import Image

    from llava.eval.answer_run import Answering
    from llava.eval.drawing import Decoding
    from llava.eval.engine import AnswerEngine
    from llava.eval.run_identity import RunIdentity
    from llava.processing import Encoded

DTYPES = ("auto", "float32", "float16", "bfloat16")
FOR_THE_MODEL = ("model_path", "model_base", "conv_mode", "dtype", "load_4bit", "load_8bit", "batch_size")
"""Flags that a server decides for itself."""


class AnsweringParser(CommandParser):
    """A parser that wants a checkpoint or a server."""

    def parse(self, argv: Sequence[str] | None = None) -> Namespace:
        options = super().parse(argv)
        if options.model_path is None and options.endpoint is None:
            self.error("the following arguments are required: --model-path (or --endpoint, for a server)")
        return options


@dataclass(frozen=True)
class PictureSource:
    """How a question's `image_path` becomes an RGB picture, and how its (width, height) is found."""

    open: "Callable[[str], Image]"
    size: "Callable[[str], tuple[int, int]]"


FILES = PictureSource(load_image, image_size)


def add_model_flags(options: CommandParser, *, max_new_tokens: int, required: bool) -> None:
    """Flags about the model and how it decodes, with the original's names; --model-path may be `required`."""
    add = options.add_argument
    add("--model-path", required=required, default=None, help="checkpoint folder")
    add("--model-base", default=None, help="base model of an adapter, when it is not where the adapter says")
    add(
        "--conv-mode",
        default=None,
        help="conversation template; by default the one the checkpoint was tuned with",
    )
    add("--temperature", type=float, default=0.0, help="0 = greedy")
    add("--top_p", type=float, default=None, help="nucleus sampling, with a temperature above 0")
    add("--num_beams", type=int, default=1, help="beam search")
    add("--max_new_tokens", type=int, default=max_new_tokens, help="longest answer")
    add("--seed", type=int, default=0, help="for sampling")
    add("--dtype", default="auto", choices=DTYPES, help="of the weights; auto: float16 on CUDA, else float32")
    add("--load-8bit", action="store_true", help="weights in 8 bits (bitsandbytes, on a GPU)")
    add("--load-4bit", action="store_true", help="weights in 4 bits (bitsandbytes, on a GPU)")


def answering_parser(
    description: str,
    *,
    questions: str,
    question_file: str = "tables/question.jsonl",
    image_folder: str = "folder that the questions' image fields are relative to",
    max_new_tokens: int = 1024,
) -> CommandParser:
    """The original's flags of a program that answers a file, and ours: --batch-size, --endpoint and others.

    `questions` and `image_folder` are help texts, `question_file` and `max_new_tokens` defaults.
    """
    options = AnsweringParser(description)
    add_model_flags(options, max_new_tokens=max_new_tokens, required=False)
    add = options.add_argument
    add("--image-folder", default="", help=image_folder)
    add("--question-file", default=question_file, help=questions)
    add("--answers-file", default="answer.jsonl", help="where the answers go; an unfinished file is taken up")
    add_trouble_flags(options)
    add("--num-chunks", type=int, default=1, help="cut the questions into so many runs ...")
    add("--chunk-idx", type=int, default=0, help="... and answer this one (counted from 0)")
    add(
        "--batch-size",
        type=batch_size_of,
        default="auto",
        help="questions decoded together, changes no answer; auto: what the free memory holds",
    )
    add("--endpoint", default=None, help="ask this OpenAI-compatible server instead: http://HOST:PORT/v1")
    add("--endpoint-model", default=None, help="the model's name there; by default the only one it has")
    add("--concurrency", type=int, default=16, help="questions that the server gets at a time")
    return options


def add_trouble_flags(options: CommandParser) -> None:
    """Flags about answers that are there already, and about questions that cannot be answered."""
    add = options.add_argument
    add("--overwrite", action="store_true", help="start anew; the old answers are kept as ANSWERS_FILE.bak")
    add("--strict", action="store_true", help="stop at the first question that cannot be answered")
    add(
        "--no-early-stop",
        dest="early_stop",
        action="store_false",
        help="go on though the first 32 answers are all empty or repeat one word",
    )


def batch_size_of(text: str) -> int | str:
    """The value of --batch-size."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"found {text!r}; a whole number or auto was wanted") from None


def template_of(mode: str) -> Template:
    """The template of that name; `UsageError` for an unknown one."""
    if mode not in TEMPLATES:
        raise UsageError(f"--conv-mode is {mode!r}; known: {', '.join(sorted(TEMPLATES))}.")
    return TEMPLATES[mode]


def check_model_flags(options: Namespace) -> None:
    """`UsageError` for a template that is not known and for numbers that nothing can be drawn with."""
    if options.conv_mode is not None:
        template_of(options.conv_mode)
    for name in ("num_beams", "max_new_tokens"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} is {getattr(options, name)}; it must be at least 1.")
    if not 0 <= options.temperature < math.inf:
        raise UsageError(f"--temperature is {options.temperature}; 0 is greedy, more draws at random.")
    if options.top_p is not None and not 0 < options.top_p <= 1:
        raise UsageError(f"--top_p is {options.top_p}; it is a share above 0, at most 1.")
    if options.load_4bit and options.load_8bit:
        raise UsageError("--load-4bit and --load-8bit exclude each other; give one of them.")


def check_flags(options: Namespace) -> None:
    """The same, and the numbers of a program that answers a file."""
    check_model_flags(options)
    for name in ("batch_size", "num_chunks", "concurrency"):
        value = getattr(options, name)
        if value != "auto" and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
    if not 0 <= options.chunk_idx < options.num_chunks:
        raise UsageError(
            f"--chunk-idx is {options.chunk_idx}; with --num-chunks {options.num_chunks} it goes from 0 to "
            f"{options.num_chunks - 1}."
        )


def note_dead_flag(flag: str, why: str) -> None:
    """One line about a flag of the original that was given and does nothing."""
    note(f"note: {flag} does nothing, as in the original: {why}\n")


def chunk_of(items: Sequence, num_chunks: int, chunk: int) -> Sequence:
    """Chunk number `chunk` of `num_chunks` runs of equal length (the last ones may be shorter or empty)."""
    size = math.ceil(len(items) / num_chunks)
    return items[chunk * size : (chunk + 1) * size]


def decoding_of(options: Namespace) -> "Decoding":
    """How answers are drawn."""
    from llava.eval.drawing import Decoding

    return Decoding(options.temperature, options.top_p, options.num_beams, options.max_new_tokens)


def loading_of(options: Namespace) -> dict[str, object]:
    """How the weights are kept, in words of `load_pretrained_model`, without what is its default."""
    chosen = {"load_4bit": options.load_4bit, "load_8bit": options.load_8bit}
    dtype = {} if options.dtype == "auto" else {"dtype": options.dtype}
    return {name: value for name, value in chosen.items() if value} | dtype


def answer_file(
    options: Namespace,
    questions: Sequence[Question],
    *,
    settings: Mapping[str, object] | None = None,
    pictures: PictureSource = FILES,
) -> None:
    """Open the model, or find the server, and answer what the answers file does not hold yet.

    Ends with `SystemExit` (3) when questions could not be answered; their lines say why.

    Args:
        settings: the program's own flags that answers depend on; files of other settings are not taken up.
    """
    from llava.eval.answer_run import RunSettings, answer_alone
    from llava.eval.answers import AnswerFile
    from llava.eval.ranks import answer_as_rank, connected, ranks_of_launcher

    ranks = ranks_of_launcher()
    file = AnswerFile(Path(options.answers_file), questions)
    run = RunSettings(options.strict, options.early_stop, overwrite=options.overwrite)
    with file if ranks is None or ranks.rank == 0 else nullcontext(), connected(ranks):
        if not options.overwrite:
            file.check()
        open_answering = open_model if options.endpoint is None else open_server
        answering, identity = open_answering(options, pictures)
        identity.settings.update(settings or {})
        if ranks is None:
            answer_alone(answering, file, identity, run)
        else:
            answer_as_rank(ranks, answering, file, identity, run)


def open_model(options: Namespace, pictures: PictureSource) -> "tuple[Answering, RunIdentity]":
    """The checkpoint's engine, and what its answers depend on."""
    import torch

    from llava.eval.run_identity import RunIdentity
    from llava.mm_utils import get_model_name_from_path
    from llava.model.locations import find_folder
    from llava.model.weight_files import config_hash, weights_hash

    engine, mode = open_engine(options, pictures)
    folder = find_folder(options.model_path)
    answers_depend_on = {
        "weights": weights_hash(folder),
        "config": config_hash(folder),
        **({} if options.model_base is None else {"base": weights_hash(find_folder(options.model_base))}),
        "conv_mode": mode,
        "image_folder": image_folder_of(options),
        "seed": options.seed,
        **vars(engine.decoding),
        **loading_of(options),
    }
    torch.manual_seed(options.seed)  # beams with a temperature draw from the global source
    prompt = prompt_of(mode, start_end=engine.model.config.mm_use_im_start_end)
    return engine, RunIdentity(get_model_name_from_path(options.model_path), answers_depend_on, prompt)


def prompt_of(mode: str, *, start_end: bool) -> str:
    """How a question about a picture is put to the model, word by word; `start_end` as in `picture_mark`."""
    from llava.processing import picture_mark

    question = f"{picture_mark(start_end=start_end)}\n{{question}}"
    return render(template_of(mode), [("human", question), ("gpt", None)]).text


def open_engine(options: Namespace, pictures: PictureSource) -> "tuple[AnswerEngine, str]":
    """The checkpoint's engine and the name of the template that it asks with."""
    from llava.eval.engine import AnswerEngine
    from llava.eval.ranks import device_of_rank
    from llava.model.builder import load_pretrained_model
    from llava.processing import Picture, encode_question, prepare_picture

    loading: Any = loading_of(options) | device_of_rank()
    tokenizer, model, image_processor, _ = load_pretrained_model(
        options.model_path, options.model_base, **loading
    )
    mode = options.conv_mode or model.config.conv_template
    template = template_of(mode)

    def load_picture(path: str) -> Picture:
        return prepare_picture(pictures.open(path), image_processor, model.config)

    @cache
    def num_patches(path: str | None) -> int:
        if path is None or model.config.image_aspect_ratio != "anyres":
            return model.num_patches
        return model.config.num_image_tokens(pictures.size(path))

    def encode(question: Question) -> "Encoded":
        return encode_question(
            question.text,
            template,
            tokenizer,
            num_patches=num_patches(question.image_path),
            has_image=question.image_path is not None,
            start_end=model.config.mm_use_im_start_end,
        )

    engine = AnswerEngine(
        model, tokenizer, encode, load_picture, decoding_of(options), options.seed, options.batch_size
    )
    return engine, mode


def image_folder_of(options: Namespace) -> str | None:
    """The folder of the pictures, wherever the program is started from."""
    return os.path.abspath(options.image_folder) if options.image_folder else None


def open_server(options: Namespace, pictures: PictureSource) -> "tuple[Answering, RunIdentity]":
    """The engine that asks a server, and what its answers depend on as far as it is known."""
    from llava.eval.endpoint import Endpoint
    from llava.eval.endpoint_engine import Asking, EndpointEngine
    from llava.eval.run_identity import RunIdentity

    if options.num_beams > 1:
        raise UsageError("--num_beams is not known to servers; leave it out with --endpoint.")
    for name in FOR_THE_MODEL:
        if getattr(options, name) not in (None, False, "auto"):
            flag = f"--{name.replace('_', '-')}"
            note(f"note: {flag} does nothing with --endpoint: the server decides it.\n")
    endpoint = Endpoint(options.endpoint)
    model = options.endpoint_model or endpoint.only_model()
    asking = Asking(model, options.temperature, options.top_p, options.max_new_tokens, options.seed)
    engine = EndpointEngine(endpoint, asking, pictures.open, options.concurrency)
    depends_on = {"endpoint_model": model, "image_folder": image_folder_of(options), **vars(asking)}
    return engine, RunIdentity(model, depends_on)
