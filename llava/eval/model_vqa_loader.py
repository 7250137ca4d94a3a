"""Answer a question file about a folder of pictures.

    python -m llava.eval.model_vqa_loader --model-path CHECKPOINT --question-file questions.jsonl \\
        --image-folder images --answers-file answers.jsonl --temperature 0 --batch-size 32
"""

import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.questions import Question, read_questions

if TYPE_CHECKING:
    from llava.eval.answers import AnswerFile
    from llava.eval.engine import AnswerEngine

WINDOW_BATCHES = 16
"""Questions are grouped by picture within so many batches; answers reach the file once a window's start is
complete.
"""


def parser() -> CommandParser:
    """The original's flags, and --batch-size and --seed."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--model-path", required=True, help="checkpoint folder")
    add("--model-base", default=None, help="base model of an adapter, when it is not where the adapter says")
    add("--image-folder", default="", help="folder that the questions' image fields are relative to")
    add(
        "--question-file",
        default="tables/question.jsonl",
        help='JSON lines: {"question_id", "image", "text"}',
    )
    add("--answers-file", default="answer.jsonl", help="where the answers go; an unfinished file is taken up")
    add(
        "--conv-mode",
        default=None,
        help="conversation template; by default the one the checkpoint was tuned with",
    )
    add("--num-chunks", type=int, default=1, help="cut the questions into so many runs ...")
    add("--chunk-idx", type=int, default=0, help="... and answer this one (counted from 0)")
    add("--temperature", type=float, default=0.0, help="0 = greedy")
    add("--top_p", type=float, default=None, help="nucleus sampling, with a temperature above 0")
    add("--num_beams", type=int, default=1, help="beam search")
    add("--max_new_tokens", type=int, default=128, help="longest answer")
    add("--batch-size", type=int, default=16, help="questions decoded together; changes no answer")
    add("--seed", type=int, default=0, help="for sampling")
    return options


def chunk_of(items: Sequence, num_chunks: int, chunk: int) -> Sequence:
    """Chunk number `chunk` of `num_chunks` runs of equal length (the last ones may be shorter or empty)."""
    if not 0 <= chunk < num_chunks:
        raise UsageError(
            f"--chunk-idx is {chunk}; with --num-chunks {num_chunks} it goes from 0 to {num_chunks - 1}."
        )
    size = math.ceil(len(items) / num_chunks)
    return items[chunk * size : (chunk + 1) * size]


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Answer one chunk of a question file."""
    options = parser().parse(argv)
    if options.batch_size < 1:
        raise UsageError(f"--batch-size is {options.batch_size}; it must be at least 1.")
    questions = read_questions(options.question_file, options.image_folder)
    answer_file(options, chunk_of(questions, options.num_chunks, options.chunk_idx))


def answer_file(options: Namespace, questions: Sequence[Question]) -> None:
    """Load the model, and answer what the answers file does not hold yet."""
    import torch

    from llava.conversation import TEMPLATES
    from llava.eval.answers import AnswerFile, RunIdentity
    from llava.eval.engine import AnswerEngine, Decoding
    from llava.mm_utils import get_model_name_from_path
    from llava.model.builder import load_pretrained_model
    from llava.model.checkpoint import weights_hash
    from llava.model.locations import find_folder
    from llava.processing import Picture, encode_question, open_picture, picture_size

    tokenizer, model, image_processor, _ = load_pretrained_model(options.model_path, options.model_base)
    mode = options.conv_mode or model.config.conv_template
    if mode not in TEMPLATES:
        raise UsageError(f"--conv-mode is {mode!r}; known: {', '.join(sorted(TEMPLATES))}.")
    decoding = Decoding(options.temperature, options.top_p, options.num_beams, options.max_new_tokens)
    settings = {
        "weights": weights_hash(find_folder(options.model_path)),
        "conv_mode": mode,
        "seed": options.seed,
    }
    identity = RunIdentity(get_model_name_from_path(options.model_path), settings | vars(decoding))
    file = AnswerFile(Path(options.answers_file), questions, identity)
    start = file.open()
    torch.manual_seed(options.seed)

    def load_picture(path: str) -> Picture:
        return open_picture(path, image_processor, model.config)

    def num_tokens(path: str | None) -> int:
        tiled = path is not None and model.config.image_aspect_ratio == "anyres"
        return model.config.num_image_tokens(picture_size(path)) if tiled else model.num_patches

    def encode(question: Question) -> object:
        return encode_question(
            question.text,
            TEMPLATES[mode],
            tokenizer,
            num_patches=num_tokens(question.image_path),
            has_image=question.image_path is not None,
            start_end=model.config.mm_use_im_start_end,
        )

    engine = AnswerEngine(model, tokenizer, encode, load_picture, decoding)
    write_answers(engine, file, questions, start=start, batch_size=options.batch_size)
    sys.stderr.write(f"{len(questions)} answers ({start} were there): {options.answers_file}\n")


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


if __name__ == "__main__":
    main()
