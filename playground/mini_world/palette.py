"""Colours of the mini world as RGB bytes, and the light and noise that every picture gets, in whole
numbers.
"""

import random

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]

PAINTS: dict[str, Colour] = {
    "red": (213, 38, 44),
    "green": (38, 150, 62),
    "blue": (36, 78, 205),
    "yellow": (252, 212, 38),
    "orange": (246, 128, 22),
    "purple": (134, 52, 172),
    "black": (26, 26, 30),
    "white": (250, 250, 248),
}
GROUNDS: dict[str, Colour] = {
    "grey": (158, 160, 166),
    "pink": (242, 184, 203),
    "teal": (112, 190, 190),
    "brown": (134, 98, 70),
    "lilac": (192, 176, 226),
}
SKIN_TONES: dict[str, Colour] = {
    "pale": (252, 221, 198),
    "tan": (226, 176, 130),
    "brown": (166, 112, 74),
    "dark": (98, 66, 48),
}
HAIR: dict[str, Colour] = {
    "black": (32, 28, 30),
    "brown": (106, 66, 38),
    "blond": (240, 204, 96),
    "red": (196, 78, 34),
    "grey": (176, 176, 182),
    "blue": (44, 96, 210),
}
IRISES: dict[str, Colour] = {
    "brown": (110, 62, 26),
    "blue": (40, 110, 220),
    "green": (34, 150, 70),
    "purple": (140, 50, 190),
}

SIDE = 96
OVERSAMPLING = 4
CANVAS = SIDE * OVERSAMPLING


def shade(colour: Colour, percent: int) -> Colour:
    """A colour made darker (below 100) or lighter (above)."""
    return tuple(min(255, channel * percent // 100) for channel in colour)  # type: ignore[return-value]


def finish(canvas: Image.Image, rng: random.Random) -> Image.Image:
    """The large canvas to 96 x 96: averaged, lit from a side, with a little grain. Whole numbers only."""
    pixels = np.asarray(canvas.reduce(OVERSAMPLING), dtype=np.int32)
    gain = 1024 + rng.randint(-110, 90)
    slope_x, slope_y = rng.randint(-2, 2), rng.randint(-2, 2)
    ramp = np.arange(SIDE, dtype=np.int32) - SIDE // 2
    light = gain + slope_x * ramp[None, :] + slope_y * ramp[:, None]
    grain = (
        np.frombuffer(rng.randbytes(SIDE * SIDE), dtype=np.uint8).reshape(SIDE, SIDE).astype(np.int32) % 9 - 4
    )
    lit = pixels * light[:, :, None] // 1024 + grain[:, :, None]
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
