"""Drawing in face units: the origin is the middle of the face, 1 is half a picture, y points down; whole
pixels come out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageDraw

from playground.mini_world.palette import Colour

CORNERS = 48
Point = tuple[float, float]


@dataclass(frozen=True)
class Pen:
    """Places points by centre (pixels), scale (pixels per unit) and turn (radians)."""

    brush: ImageDraw.ImageDraw
    centre: tuple[int, int]
    scale: float
    turn: float

    def place(self, x: float, y: float) -> tuple[int, int]:
        """A point in face units to a whole pixel."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return (
            round(self.centre[0] + self.scale * (x * cos - y * sin)),
            round(self.centre[1] + self.scale * (x * sin + y * cos)),
        )

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled polygon."""
        self.brush.polygon([self.place(*point) for point in points], fill=fill)

    def ellipse(self, x: float, y: float, radii: Point, fill: Colour, *, squareness: float = 2.0) -> None:
        """A filled ellipse; a squareness above 2 makes it a rounded box."""
        self.polygon(oval(x, y, radii, squareness=squareness), fill)

    def line(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """A line with round ends; the width is in face units."""
        pixels = max(1, round(width * self.scale))
        placed = [self.place(*point) for point in points]
        self.brush.line(placed, fill=fill, width=pixels, joint="curve")
        half = pixels // 2
        for x, y in (placed[0], placed[-1]):
            self.brush.ellipse((x - half, y - half, x + half, y + half), fill=fill)


def oval(x: float, y: float, radii: Point, *, squareness: float = 2.0) -> list[Point]:
    """Corners of a superellipse around (x, y)."""
    points = []
    for corner in range(CORNERS):
        angle = 2 * math.pi * corner / CORNERS
        cos, sin = math.cos(angle), math.sin(angle)
        points.append(
            (
                x + radii[0] * math.copysign(abs(cos) ** (2 / squareness), cos),
                y + radii[1] * math.copysign(abs(sin) ** (2 / squareness), sin),
            )
        )
    return points


def arc(x: float, y: float, radii: Point, start: float, end: float) -> list[Point]:
    """Twenty points on an ellipse from one angle to another, in degrees, 0 = right, 90 = down."""
    angles = [math.radians(start + (end - start) * step / 19) for step in range(20)]
    return [(x + radii[0] * math.cos(angle), y + radii[1] * math.sin(angle)) for angle in angles]
