"""Overview of the mini world as one PNG: scenes, people, one person in many views, and their look-alikes.

python -m playground.mini_world.contact_sheet --out sheet.png [--seed 0] [--columns 10]
"""

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from playground.mini_world.draw import draw_person, draw_scene
from playground.mini_world.palette import SIDE
from playground.mini_world.world import Look, sample_look, sample_lookalike, sample_scene, sample_view

GAP = 4  # pixels between pictures
TITLE_HEIGHT = 16


def contact_sheet(seed: int, columns: int) -> Image.Image:
    """The overview; the same seed gives the same sheet."""
    rng = random.Random(seed)
    first, second = sample_look(rng), sample_look(rng)
    rows: list[tuple[str, Callable[[], Image.Image]]] = [
        ("scenes", lambda: draw_scene(sample_scene(rng))),
        ("", lambda: draw_scene(sample_scene(rng))),
        ("people, all different", lambda: _portrait(sample_look(rng), rng)),
        ("", lambda: _portrait(sample_look(rng), rng)),
        ("one person in many views", lambda: _portrait(first, rng)),
        (
            "look-alikes of that person: at most one attribute differs, and the fine traits",
            lambda: _lookalike(first, rng),
        ),
        ("another person in many views", lambda: _portrait(second, rng)),
        ("look-alikes of that person", lambda: _lookalike(second, rng)),
    ]
    return _grid([(title, [draw() for _ in range(columns)]) for title, draw in rows])


def _portrait(look: Look, rng: random.Random) -> Image.Image:
    """A picture of the look in a new view."""
    return draw_person(look, sample_view(rng))


def _lookalike(look: Look, rng: random.Random) -> Image.Image:
    """A picture of a new look-alike."""
    return _portrait(sample_lookalike(look, rng), rng)


def _grid(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Rows of pictures, a title above each row that has one."""
    step = SIDE + GAP
    heights = [step + (TITLE_HEIGHT if title else 0) for title, _ in rows]
    sheet = Image.new(
        "RGB", (GAP + step * max(len(pictures) for _, pictures in rows), GAP + sum(heights)), "white"
    )
    brush = ImageDraw.Draw(sheet)
    top = GAP
    for (title, pictures), height in zip(rows, heights, strict=True):
        if title:
            brush.text((GAP, top), title, fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (GAP + column * step, top + height - step))
        top += height
    return sheet


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description="Draw an overview of the mini world.")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0, help="what is drawn")
    parser.add_argument("--columns", type=int, default=10, help="pictures per row")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(arguments.seed, arguments.columns).save(arguments.out)


if __name__ == "__main__":
    main()
