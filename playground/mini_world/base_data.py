"""The base model's pictures and questions, in LLaVA's formats.

    python -m playground.mini_world.base_data --out build/data --images 20000

Writes images/, pretrain.json (captions), finetune.json (questions, and text without pictures), text.json (the
text alone), and questions/retention.jsonl with truth.jsonl on held-out pictures and wordings.
With --round 2 or 4, only second.json or fourth.json: other questions about the same pictures, most of them of
the kinds that the rounds before learn last.
"""

import argparse
import logging
import random
import time
from collections.abc import Sequence
from multiprocessing import Pool
from pathlib import Path

from playground.mini_world.draw import draw_person, draw_scene
from playground.mini_world.files import conversation_row, question_row, save_picture, write_json, write_lines
from playground.mini_world.held_out import Asked, retention_questions
from playground.mini_world.people import NEW_JOBS, UNKNOWN_ENDS, Person, make_name, public_people
from playground.mini_world.questions import (
    FOURTH_SHARES,
    QA,
    SECOND_SHARES,
    Phrasing,
    describe_person,
    describe_scene,
    person_questions,
    scene_questions,
    text_question,
)
from playground.mini_world.world import sample_look, sample_lookalike, sample_scene, sample_view

logger = logging.getLogger("mini_world")

PER_IMAGE = 8
LATER_PER_SCENE, LATER_PER_PERSON = 10, 5
LATER_ROUNDS = {2: ("second", SECOND_SHARES), 4: ("fourth", FOURTH_SHARES)}
"""Name and shares of the rounds that ask more about pictures drawn before; the third is `copying.py`."""
TEXT_SHARE = 0.12
HELD_OUT_TIERS = ("base_test",)


def make_image(job: tuple[int, int, Path, int]) -> tuple[str, str, list[QA]]:
    """Picture number n of a seed: (file name, caption, questions); drawn in the first round, asked about in
    all.
    """
    seed, number, folder, tuning_round = job
    rng = random.Random(f"base/{seed}/{number}")
    name = f"{number:06d}.png"
    phrasing = Phrasing("base", rng)
    chance = rng.random()
    if chance < 0.62:
        scene = sample_scene(rng)
        if tuning_round > 1:
            round_name, shares = LATER_ROUNDS[tuning_round]
            phrasing = Phrasing("base", random.Random(f"base/{seed}/{number}/{round_name}"))
            qas = scene_questions(scene, phrasing, LATER_PER_SCENE, shares)
            return name, describe_scene(scene), qas
        save_picture(draw_scene(scene), folder / name)
        return name, describe_scene(scene), scene_questions(scene, phrasing, PER_IMAGE)
    everybody = public_people()
    public = rng.choice(everybody)
    person: Person | None = public if chance < 0.78 else None
    look = (
        public.look if person else sample_lookalike(public.look, rng) if chance < 0.84 else sample_look(rng)
    )
    view = sample_view(rng)
    if tuning_round > 1:
        round_name, _ = LATER_ROUNDS[tuning_round]
        phrasing = Phrasing("base", random.Random(f"base/{seed}/{number}/{round_name}"))
    else:
        save_picture(draw_person(look, view), folder / name)
    others = wrong_names(person, public, everybody, phrasing.rng)
    count = LATER_PER_PERSON if tuning_round > 1 else PER_IMAGE
    questions = person_questions(look, view, person, phrasing, count, others=others)
    return name, describe_person(look, view), questions


def wrong_names(
    person: Person | None, near: Person, everybody: Sequence[Person], rng: random.Random
) -> list[str]:
    """Names that the person in a picture does not have: public ones (for look-alikes often the near one) and
    unknown ones.
    """
    names = [other.name for other in everybody if other is not person]
    names += [make_name(rng, UNKNOWN_ENDS) for _ in range(len(names) // 2)]
    return names + ([] if person else [near.name] * (len(names) // 2))


def text_rows(seed: int | str, count: int) -> list[dict[str, object]]:
    """Samples without pictures."""
    rng = random.Random(f"base/{seed}/text")
    people, phrasing = public_people(), Phrasing("base", rng)
    unknown = [make_name(rng, UNKNOWN_ENDS) for _ in range(200)]
    return [
        conversation_row(
            f"text_{number}", text_question(people, unknown, phrasing, unknown_jobs=NEW_JOBS), None
        )
        for number in range(count)
    ]


def write_held_out(asked: Sequence[Asked], out: Path) -> None:
    """Held-out pictures, their question file and the truth."""
    questions, truth = [], []
    for number, item in enumerate(asked):
        name = f"retention_{number:05d}"
        image = None if item.picture is None else f"held_out/{item.picture_name}.png"
        if image is not None and item.picture is not None:
            save_picture(item.picture, out / "images" / image)
        questions.append(question_row(name, item.qa.text, item.qa.kind, image))
        truth.append(truth_row(name, item.qa, item.qa.kind))
    write_lines(questions, out / "questions" / "retention.jsonl")
    write_lines(truth, out / "truth.jsonl")


def truth_row(
    name: str,
    qa: QA,
    split: str,
    *,
    identity: str | None = None,
    seen_wording: bool = False,
    direction: str | None = None,
) -> dict[str, object]:
    """One line of the truth file."""
    return {
        "question_id": name,
        "split": split,
        "kind": qa.detail or qa.kind,
        "answer": qa.answer,
        "identity": identity,
        "seen_wording": seen_wording,
        "direction": direction,
    }


def main() -> None:
    """Draw everything."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--images", type=int, default=20000)
    options.add_argument("--held-out", type=int, default=100, help="held-out questions of each kind")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument(
        "--round", type=int, choices=(1, *LATER_ROUNDS), default=1, help="a later one: only its questions"
    )
    args = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.perf_counter()
    folder = args.out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with Pool(args.processes) as pool:
        drawn = pool.map(
            make_image,
            [(args.seed, number, folder, args.round) for number in range(args.images)],
            chunksize=64,
        )
    captions = [
        {"id": name, "image": name, "conversations": [
            {"from": "human", "value": "<image>"}, {"from": "gpt", "value": caption}]}
        for name, caption, _ in drawn
    ]  # fmt: skip
    rows = [conversation_row(f"{name}_{k}", qa, name) for name, _, qas in drawn for k, qa in enumerate(qas)]
    round_name = LATER_ROUNDS[args.round][0] if args.round > 1 else "finetune"
    seed = f"{args.seed}/{round_name}" if args.round > 1 else args.seed
    text = text_rows(seed, round(len(rows) * TEXT_SHARE / (1 - TEXT_SHARE)))
    mixed = rows + text
    random.Random(f"base/{seed}/order").shuffle(mixed)
    write_json(mixed, args.out / f"{round_name}.json")
    if args.round == 1:
        write_json(captions, args.out / "pretrain.json")
        write_json(text, args.out / "text.json")
        write_held_out(retention_questions("base", per_split=args.held_out, tiers=HELD_OUT_TIERS), args.out)
    logger.info("%d pictures, %d questions, %.0f s", len(drawn), len(mixed), time.perf_counter() - started)


if __name__ == "__main__":
    main()
