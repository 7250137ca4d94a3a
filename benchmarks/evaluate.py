"""Questions answered per second: the engine against the original's way, side by side on this machine.

    python -m benchmarks.evaluate --model playground/mini_world/base --questions-per-image 1 10

The original's way is batch size 1: for every question its picture is opened, encoded and prefilled, and
transformers' `generate` decodes. Rounds of the two alternate, so that a busy machine slows both; the first
round of each warms up and is not counted. Speed counts only where all answers are the same text.
"""

import argparse
import random
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import MIB, RESULTS, PeakMemory, as_table, environment, median_of, write_result
from llava.conversation import TEMPLATES, render
from llava.eval.answering import FILES, batch_size_of, open_engine
from llava.eval.engine import AnswerEngine
from llava.eval.questions import Question
from llava.processing import (
    load_image,
    load_image_processor,
    picture_mark,
    process_images,
    tokenizer_image_token,
)
from llava.tokenizer import decode_text
from playground.mini_world.draw import draw_scene
from playground.mini_world.files import save_picture
from playground.mini_world.questions import Phrasing, scene_questions
from playground.mini_world.world import sample_scene

Answer = Callable[[Sequence[Question]], list[str]]


@dataclass
class Timed:
    """What one way of answering took: seconds of each counted round, and the most memory."""

    seconds: list[float]
    peak: int = 0


def make_questions(folder: Path, *, num_pictures: int, per_picture: int) -> list[Question]:
    """Questions about scenes of the mini world, those of one picture side by side, as in a question file."""
    rng = random.Random("benchmark")
    phrasing = Phrasing("train", rng)
    questions = []
    for number in range(num_pictures):
        scene = sample_scene(rng)
        name = f"{number}.png"
        save_picture(draw_scene(scene), folder / name)
        for k, qa in enumerate(scene_questions(scene, phrasing, per_picture)):
            questions.append(Question(f"{number}/{k}", qa.text, name, str(folder / name), None))
    return questions


def by_engine(engine: AnswerEngine) -> Answer:
    """Our way."""

    def answer(questions: Sequence[Question]) -> list[str]:
        found = dict(engine.answer(questions))
        return [found[index] for index in range(len(questions))]

    return answer


def one_by_one(engine: AnswerEngine, mode: str, image_processor: Any) -> Answer:
    """The original's way, with its calls."""
    model, tokenizer = engine.model, engine.tokenizer
    config = engine.decoding.as_config(tokenizer)
    mark = picture_mark(start_end=model.config.mm_use_im_start_end)

    def answer_one(question: Question) -> str:
        picture = load_image(str(question.image_path))
        pixels = process_images([picture], image_processor, model.config)
        turns = [("human", f"{mark}\n{question.text}"), ("gpt", None)]
        prompt = render(TEMPLATES[mode], turns).text
        ids: Any = tokenizer_image_token(prompt, tokenizer, return_tensors="pt")
        ids = ids[None].to(model.device)
        output: Any = model.generate(
            ids,
            images=[one.to(model.device, model.dtype) for one in pixels],
            image_sizes=[picture.size],
            attention_mask=torch.ones_like(ids),
            generation_config=config,
        )
        return decode_text(tokenizer, output[0].tolist()).strip()

    return lambda questions: [answer_one(question) for question in questions]


def measure(ways: dict[str, Answer], questions: Sequence[Question], rounds: int) -> tuple[dict, list[str]]:
    """(`Timed` of every way, the answers, which must be the same in all)."""
    timed = {name: Timed([]) for name in ways}
    texts: dict[str, list[str]] = {}
    for number in range(rounds + 1):
        for name, answer in ways.items():
            memory = PeakMemory()
            memory.start()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            texts[name] = answer(questions)
            seconds = time.perf_counter() - started
            on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
            timed[name].peak = max(timed[name].peak, on_gpu or memory.above_start())
            if number:
                timed[name].seconds.append(seconds)
    first, *others = texts.values()
    for other in others:
        differing = sum(one != two for one, two in zip(first, other, strict=True))
        if differing:
            sys.exit(
                f"{differing} of {len(first)} answers differ between {', '.join(texts)}; no speed counts."
            )
    return timed, first


def row_of(per_picture: int, timed: dict[str, Timed], answers: Sequence[str]) -> dict[str, object]:
    """One line of the result: questions per second, and the median of the ratios round by round."""
    count = len(answers)
    original, ours = timed["original"].seconds, timed["engine"].seconds
    return {
        "questions_per_image": per_picture,
        "questions": count,
        "distinct_answers": len(set(answers)),
        "answers_differ": 0,
        "questions_per_second": {
            name: median_of([count / seconds for seconds in one.seconds]) for name, one in timed.items()
        },
        "times_faster": median_of([theirs / mine for theirs, mine in zip(original, ours, strict=True)]),
        "peak_memory_mib": {name: round(one.peak / MIB) for name, one in timed.items()},
    }


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """The result for people."""
    header = (
        "questions per image",
        "questions",
        "original, 1/s",
        "engine, 1/s",
        "times faster (spread)",
        "peak MiB",
    )
    lines = [
        (
            row["questions_per_image"],
            row["questions"],
            row["questions_per_second"]["original"]["median"],
            row["questions_per_second"]["engine"]["median"],
            f"{row['times_faster']['median']} ({100 * row['times_faster']['spread']:.0f} %)",
            f"{row['peak_memory_mib']['original']} / {row['peak_memory_mib']['engine']}",
        )
        for row in rows
    ]
    return as_table([header, *lines])


def read_arguments(argv: Sequence[str] | None) -> Namespace:
    """The flags."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = options.add_argument
    add("--model", default="playground/mini_world/base", help="checkpoint folder")
    add("--questions-per-image", type=int, nargs="+", default=[1, 10])
    add("--questions", type=int, default=240, help="about so many in all, for each of these")
    add("--batch-size", type=batch_size_of, default="auto", help="of the engine")
    add("--max-new-tokens", type=int, default=128)
    add("--dtype", default="float32", help="of the weights; answers are sure to be the same in float32 only")
    add("--rounds", type=int, default=3, help="that are counted")
    add("--threads", type=int, default=None, help="of torch; by default as many as it takes")
    add("--out", type=Path, default=RESULTS / "evaluate.json")
    return options.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON."""
    args = read_arguments(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    model_flags = Namespace(
        model_path=args.model, model_base=None, conv_mode=None, temperature=0.0, top_p=None, num_beams=1,
        max_new_tokens=args.max_new_tokens, seed=0, dtype=args.dtype, load_4bit=False, load_8bit=False,
        batch_size=args.batch_size,
    )  # fmt: skip
    engine, mode = open_engine(model_flags, FILES)
    image_processor = load_image_processor(args.model)
    ways = {"original": one_by_one(engine, mode, image_processor), "engine": by_engine(engine)}
    rows = []
    for per_picture in args.questions_per_image:
        with tempfile.TemporaryDirectory() as folder:
            num_pictures = max(args.questions // per_picture, 1)
            questions = make_questions(Path(folder), num_pictures=num_pictures, per_picture=per_picture)
            rows.append(row_of(per_picture, *measure(ways, questions, args.rounds)))
    sys.stdout.write(table_of(rows) + "\n")
    record = environment(["benchmarks.evaluate", *(sys.argv[1:] if argv is None else argv)])
    record |= {"threads": torch.get_num_threads(), "dtype": args.dtype, "batch_size": args.batch_size}
    write_result(record | {"rows": rows}, args.out)


if __name__ == "__main__":
    main()
