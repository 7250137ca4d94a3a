"""What the answering programs share: their flags, chunks, and the way from questions to an answers file.

The programs differ in the file that they read; this module imports torch only when the model is loaded.
"""

import math
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from llava.command_line import CommandParser
from llava.conversation import TEMPLATES, Template
from llava.errors import UsageError
from llava.eval.questions import Question
from llava.images import load_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from llava.eval.answers import AnswerFile
    from llava.eval.engine import AnswerEngine, Decoding
    from llava.processing import Encoded

WINDOW_BATCHES = 16
"""Questions are grouped by picture within so many batches; answers reach the file once a window's start is
complete.
"""


def add_model_flags(options: CommandParser, *, max_new_tokens: int) -> None:
    """Flags about the model and how it decodes, with the original's names."""
    add = options.add_argument
    add("--model-path", required=True, help="checkpoint folder")
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


def answering_parser(
    description: str,
    *,
    questions: str,
    question_file: str = "tables/question.jsonl",
    image_folder: str = "folder that the questions' image fields are relative to",
    max_new_tokens: int = 1024,
) -> CommandParser:
    """The original's flags of a program that answers a file, and --batch-size and --seed.

    `questions` and `image_folder` are help texts, `question_file` and `max_new_tokens` defaults.
    """
    options = CommandParser(description)
    add_model_flags(options, max_new_tokens=max_new_tokens)
    add = options.add_argument
    add("--image-folder", default="", help=image_folder)
    add("--question-file", default=question_file, help=questions)
    add("--answers-file", default="answer.jsonl", help="where the answers go; an unfinished file is taken up")
    add("--num-chunks", type=int, default=1, help="cut the questions into so many runs ...")
    add("--chunk-idx", type=int, default=0, help="... and answer this one (counted from 0)")
    add("--batch-size", type=int, default=16, help="questions decoded together; changes no answer")
    return options


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


def check_flags(options: Namespace) -> None:
    """The same, and the numbers of a program that answers a file."""
    check_model_flags(options)
    if options.batch_size < 1:
        raise UsageError(f"--batch-size is {options.batch_size}; it must be at least 1.")
    if options.num_chunks < 1:
        raise UsageError(f"--num-chunks is {options.num_chunks}; it must be at least 1.")
    if not 0 <= options.chunk_idx < options.num_chunks:
        raise UsageError(
            f"--chunk-idx is {options.chunk_idx}; with --num-chunks {options.num_chunks} it goes from 0 to "
            f"{options.num_chunks - 1}."
        )


def note_dead_flag(flag: str, why: str) -> None:
    """One line about a flag of the original that was given and does nothing."""
    sys.stderr.write(f"note: {flag} does nothing, as in the original: {why}\n")


def chunk_of(items: Sequence, num_chunks: int, chunk: int) -> Sequence:
    """Chunk number `chunk` of `num_chunks` runs of equal length (the last ones may be shorter or empty)."""
    size = math.ceil(len(items) / num_chunks)
    return items[chunk * size : (chunk + 1) * size]


def decoding_of(options: Namespace) -> "Decoding":
    """How answers are drawn."""
    from llava.eval.engine import Decoding

    return Decoding(options.temperature, options.top_p, options.num_beams, options.max_new_tokens)


def answer_file(
    options: Namespace,
    questions: Sequence[Question],
    *,
    settings: Mapping[str, object] | None = None,
    open_picture: "Callable[[str], Image]" = load_image,
) -> None:
    """Load the model, and answer what the answers file does not hold yet.

    Args:
        settings: the program's own flags that answers depend on; files of other settings are not taken up.
        open_picture: a question's `image_path` to an RGB picture.
    """
    import torch

    from llava.eval.answers import AnswerFile, RunIdentity
    from llava.mm_utils import get_model_name_from_path
    from llava.model.checkpoint import weights_hash
    from llava.model.locations import find_folder

    engine, mode = open_engine(options, open_picture)
    answers_depend_on = {
        "weights": weights_hash(find_folder(options.model_path)),
        "conv_mode": mode,
        "seed": options.seed,
        **vars(engine.decoding),
        **(settings or {}),
    }
    identity = RunIdentity(get_model_name_from_path(options.model_path), answers_depend_on)
    file = AnswerFile(Path(options.answers_file), questions, identity)
    start = file.open()
    torch.manual_seed(options.seed)
    write_answers(engine, file, questions, start=start, batch_size=options.batch_size)
    sys.stderr.write(f"{len(questions)} answers ({start} were there): {options.answers_file}\n")


def open_engine(options: Namespace, open_picture: "Callable[[str], Image]") -> "tuple[AnswerEngine, str]":
    """The checkpoint's engine and the name of the template that it asks with."""
    from llava.eval.engine import AnswerEngine
    from llava.model.builder import load_pretrained_model
    from llava.processing import Picture, encode_question, prepare_picture

    tokenizer, model, image_processor, _ = load_pretrained_model(options.model_path, options.model_base)
    mode = options.conv_mode or model.config.conv_template
    template = template_of(mode)

    def load_picture(path: str) -> Picture:
        return prepare_picture(open_picture(path), image_processor, model.config)

    @cache
    def num_patches(path: str | None) -> int:
        if path is None or model.config.image_aspect_ratio != "anyres":
            return model.num_patches
        return model.config.num_image_tokens(open_picture(path).size)

    def encode(question: Question) -> "Encoded":
        return encode_question(
            question.text,
            template,
            tokenizer,
            num_patches=num_patches(question.image_path),
            has_image=question.image_path is not None,
            start_end=model.config.mm_use_im_start_end,
        )

    return AnswerEngine(model, tokenizer, encode, load_picture, decoding_of(options)), mode


def write_answers(
    engine: "AnswerEngine", file: "AnswerFile", questions: Sequence[Question], *, start: int, batch_size: int
) -> None:
    """Answer from question number `start` on, window by window, each answer to the file at once."""
    from tqdm import tqdm

    window = batch_size * WINDOW_BATCHES
    with tqdm(total=len(questions), initial=start, disable=not sys.stderr.isatty(), unit="question") as bar:
        for begin in range(start, len(questions), window):
            for index, text in engine.answer(questions[begin : begin + window], batch_size=batch_size):
                file.add(begin + index, text)
                file.flush()
                bar.update()
