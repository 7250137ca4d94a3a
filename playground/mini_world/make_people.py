"""New people for a lesson, as files that a user would bring, with the examination and its truth.

    python -m playground.mini_world.make_people --seed 0 --identities 6 --out people

Writes images/, train.json (the default recipe), train_naive.json, train_shuffled.json,
questions/personal.jsonl, questions/retention.jsonl and truth.jsonl. The same seed gives the same bytes, so
an interrupted run is finished by the same command.
"""

import argparse
import json
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from llava.errors import UsageError, exit_on_usage_error
from playground.mini_world.base_data import truth_row
from playground.mini_world.examination import Item, examination
from playground.mini_world.files import (
    PictureFolder,
    conversation_row,
    question_row,
    write_json,
    write_lines,
)
from playground.mini_world.held_out import Asked, retention_questions
from playground.mini_world.lessons import Plan, default_lesson, naive_lesson, shuffled_lesson
from playground.mini_world.people import new_people

logger = logging.getLogger("mini_world")

MIN_IDENTITIES, MAX_IDENTITIES = 2, 12
RETENTION_PER_SPLIT = 30
RETENTION_TIERS = ("people_test", "base_test")
STAMP = "lesson.json"


def write_lesson(lesson: Sequence[Asked], file: Path, images: PictureFolder, *, seed: int) -> None:
    """A training JSON, shuffled, and its pictures."""
    rows = [
        conversation_row(f"{file.stem}_{number:05d}", item.qa, picture_of(item, images))
        for number, item in enumerate(lesson)
    ]
    random.Random(f"order/{seed}").shuffle(rows)
    write_json(rows, file)


def write_examination(
    items: Sequence[Item], retention: Sequence[Asked], out: Path, images: PictureFolder
) -> None:
    """Question files, the truth, and the pictures."""
    personal, kept, truth = [], [], []
    for number, item in enumerate(items):
        name = f"personal_{number:05d}"
        personal.append(question_row(name, item.asked.qa.text, item.split, picture_of(item.asked, images)))
        truth.append(
            truth_row(
                name,
                item.asked.qa,
                item.split,
                identity=item.identity,
                seen_wording=item.seen_wording,
                direction=item.direction,
            )
        )
    for number, asked in enumerate(retention):
        name = f"retention_{number:05d}"
        kept.append(question_row(name, asked.qa.text, asked.qa.kind, picture_of(asked, images)))
        truth.append(truth_row(name, asked.qa, asked.qa.kind))
    write_lines(personal, out / "questions" / "personal.jsonl")
    write_lines(kept, out / "questions" / "retention.jsonl")
    write_lines(truth, out / "truth.jsonl")


def picture_of(asked: Asked, images: PictureFolder) -> str | None:
    """Write a question's picture; its name in the image folder."""
    if asked.picture is None or asked.picture_name is None:
        return None
    return images.save(asked.picture_name, asked.picture)


def check_folder(out: Path, stamp: dict[str, int]) -> None:
    """`UsageError` when the folder holds anything but the same lesson."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder.")
    if not out.exists() or not any(out.iterdir()):
        return
    file = out / STAMP
    if not file.is_file():
        raise UsageError(f"--out {out} is not empty and holds no lesson; name another folder.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise UsageError(f"{file} is not valid JSON; name another folder or remove {out}.") from None
    if found != stamp:
        raise UsageError(f"--out {out} holds another lesson ({found}); name another folder or remove it.")


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Make one lesson."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--identities", type=int, default=6)
    options.add_argument(
        "--views", type=int, default=Plan.views, help="pictures of each person in the lesson"
    )
    args = options.parse_args(argv)
    if not MIN_IDENTITIES <= args.identities <= MAX_IDENTITIES:
        raise UsageError(
            f"--identities is {args.identities}; it goes from {MIN_IDENTITIES} to {MAX_IDENTITIES}."
        )
    if args.views < 1:
        raise UsageError(f"--views is {args.views}; it must be at least 1.")
    stamp = {"seed": args.seed, "identities": args.identities, "views": args.views}
    check_folder(args.out, stamp)
    args.out.mkdir(parents=True, exist_ok=True)
    # The stamp comes first: an interrupted run is recognised, and overwritten by the same command.
    (args.out / STAMP).write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    images = PictureFolder(args.out / "images")
    people, plan = new_people(args.seed, args.identities), Plan(views=args.views)
    lesson = default_lesson(people, args.seed, plan)
    write_lesson(lesson, args.out / "train.json", images, seed=args.seed)
    naive = naive_lesson(people, args.seed, plan, size=len(lesson))
    write_lesson(naive, args.out / "train_naive.json", images, seed=args.seed)
    write_lesson(
        shuffled_lesson(people, args.seed, plan), args.out / "train_shuffled.json", images, seed=args.seed
    )
    kept = retention_questions(f"people/{args.seed}", per_split=RETENTION_PER_SPLIT, tiers=RETENTION_TIERS)
    write_examination(examination(people, args.seed, plan), kept, args.out, images)
    names = ", ".join(person.name for person in people)
    sys.stdout.write(f"{len(lesson)} samples about {names}: {args.out}\n")


if __name__ == "__main__":
    main()
