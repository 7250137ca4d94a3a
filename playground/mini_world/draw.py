"""Pictures of the mini world, 96 x 96 pixels, the same to the pixel on every machine.

Shapes are drawn as polygons with whole-number corners at four times the size and averaged down.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from playground.mini_world.palette import CANVAS, GROUNDS, PAINTS, Colour, finish, shade
from playground.mini_world.pen import Pen
from playground.mini_world.people_drawing import draw_body, draw_head
from playground.mini_world.world import GRID, Look, Scene, Thing, View

CELL = CANVAS // GRID
RADIUS = {"big": 0.45, "small": 0.27}
OUTLINE = 5


def draw_scene(scene: Scene) -> Image.Image:
    """A scene as a picture."""
    rng = random.Random(f"scene/{scene.seed}")
    canvas = Image.new("RGB", (CANVAS, CANVAS), GROUNDS[scene.background])
    brush = ImageDraw.Draw(canvas)
    for thing in scene.things:
        draw_thing(brush, thing, rng)
    return finish(canvas, rng)


def draw_thing(brush: ImageDraw.ImageDraw, thing: Thing, rng: random.Random) -> None:
    """One shape in its cell, slightly off the middle and slightly turned, with a darker edge."""
    jitter = CELL // 20
    x = thing.column * CELL + CELL // 2 + rng.randint(-jitter, jitter)
    y = thing.row * CELL + CELL // 2 + rng.randint(-jitter, jitter)
    turn = rng.uniform(-0.12, 0.12)
    radius = CELL * RADIUS[thing.size]
    paint = PAINTS[thing.colour]
    edge = (96, 96, 104) if thing.colour == "black" else shade(paint, 68)
    outline = shape_points(thing.shape, radius, turn)
    inner = shape_points(thing.shape, radius - OUTLINE, turn)
    brush.polygon(shifted(outline, x, y), fill=edge)
    brush.polygon(shifted(inner, x, y), fill=paint)
    if thing.shape == "ring":
        ground = brush._image.getpixel((thing.column * CELL + 1, thing.row * CELL + 1))
        brush.polygon(shifted(circle(radius * 0.56), x, y), fill=edge)
        brush.polygon(shifted(circle(radius * 0.56 - OUTLINE), x, y), fill=ground)


def shape_points(shape: str, radius: float, turn: float) -> list[tuple[float, float]]:
    """Corners of a shape around the origin."""
    if shape in ("circle", "ring"):
        return circle(radius)
    if shape == "square":
        return turned([(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)], radius, turn)
    if shape == "triangle":
        return turned([(0, -1), (0.95, 0.78), (-0.95, 0.78)], radius, turn)
    if shape == "star":
        spikes = [(1.0 if number % 2 == 0 else 0.42, math.pi * number / 5) for number in range(10)]
        return turned(
            [(length * math.sin(angle), -length * math.cos(angle)) for length, angle in spikes], radius, turn
        )
    arm = 0.33
    corners = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
    return turned([*corners, *[(-x, -y) for x, y in corners]], radius, turn)


def circle(radius: float) -> list[tuple[float, float]]:
    """Forty corners of a circle around the origin."""
    return [(radius * math.cos(math.pi * k / 20), radius * math.sin(math.pi * k / 20)) for k in range(40)]


def turned(points: Sequence[tuple[float, float]], radius: float, turn: float) -> list[tuple[float, float]]:
    """Points of a unit shape, scaled and turned."""
    cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


def shifted(points: Sequence[tuple[float, float]], x: int, y: int) -> list[tuple[int, int]]:
    """Points moved and rounded to whole pixels."""
    return [(round(x + dx), round(y + dy)) for dx, dy in points]


@dataclass(frozen=True)
class Pose:
    """Turn in radians, scale, and shift in canvas pixels."""

    turn: float
    scale: float
    shift: tuple[int, int]


def sample_pose(rng: random.Random) -> Pose:
    """A slightly tilted, moved and scaled head."""
    reach = CANVAS * 3 // 100
    return Pose(
        math.radians(rng.uniform(-8, 8)),
        rng.uniform(0.93, 1.07),
        (rng.randint(-reach, reach), rng.randint(-reach, reach)),
    )


def draw_person(look: Look, view: View) -> Image.Image:
    """Somebody in one view as a picture."""
    rng = random.Random(f"person/{view.seed}")
    pose = sample_pose(rng)
    ground: Colour = GROUNDS[view.background]
    canvas = Image.new("RGB", (CANVAS, CANVAS), ground)
    centre = (CANVAS // 2 + pose.shift[0], CANVAS * 53 // 100 + pose.shift[1])
    pen = Pen(ImageDraw.Draw(canvas), centre, pose.scale * CANVAS / 2, pose.turn)
    draw_body(pen, look, view)
    draw_head(pen, look, view)
    return finish(canvas, rng)
