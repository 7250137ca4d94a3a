"""What there is in the mini world: scenes of coloured shapes, and people with a look that lasts and views
that change.

Everything is drawn from a `random.Random`, so the same seed gives the same world everywhere.
"""

import random
from dataclasses import dataclass, replace

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
SIZES = ("big", "small")
BACKGROUNDS = ("grey", "pink", "teal", "brown")
GRID = 4
THING_COUNTS = (1, 2, 2, 3, 3, 3, 4)

SKINS = ("pale", "tan", "brown", "dark")
HAIR_COLOURS = ("black", "brown", "blond", "red", "grey", "blue")
HAIR_STYLES = ("bald", "short", "long", "curly", "spiky")
GLASSES = ("none", "round", "square")
BEARDS = ("none", "moustache", "full")
FACES = ("round", "oval", "square")
EYE_COLOURS = ("brown", "blue", "green", "purple")
MARKS = ("none", "mole", "scar", "freckles")
TRAITS = (
    "face_width",
    "face_height",
    "eye_gap",
    "eye_size",
    "eye_height",
    "nose_length",
    "nose_width",
    "mouth_width",
    "brow_thickness",
    "brow_angle",
    "ear_size",
    "hair_volume",
)

HATS = ("none", "cap", "top hat")
PERSON_BACKGROUNDS = ("grey", "pink", "teal", "brown", "lilac")
EXPRESSIONS = ("happy", "sad", "surprised")


@dataclass(frozen=True)
class Thing:
    """A shape in a cell of the grid (row and column from 0, the top left)."""

    shape: str
    colour: str
    size: str
    row: int
    column: int


@dataclass(frozen=True)
class Scene:
    """Things in reading order on a background; the seed decides jitter, light and noise."""

    things: tuple[Thing, ...]
    background: str
    seed: int


@dataclass(frozen=True)
class Look:
    """An identity: attributes that have names, and fine traits in [-1, 1], in the order of `TRAITS`."""

    skin: str
    hair_colour: str
    hair_style: str
    glasses: str
    beard: str
    face: str
    eye_colour: str
    mark: str
    traits: tuple[float, ...]

    def trait(self, name: str) -> float:
        """One fine trait by its name."""
        return self.traits[TRAITS.index(name)]


@dataclass(frozen=True)
class View:
    """What changes from picture to picture; the seed decides pose, light and noise."""

    hat: str
    hat_colour: str
    shirt: str
    background: str
    expression: str
    seed: int


LOOK_CHOICES = {
    "skin": SKINS,
    "hair_colour": HAIR_COLOURS,
    "hair_style": HAIR_STYLES,
    "glasses": GLASSES,
    "beard": BEARDS,
    "face": FACES,
    "eye_colour": EYE_COLOURS,
    "mark": MARKS,
}
"""The named attributes of a look and their values."""

VIEW_CHOICES = {
    "hat": HATS,
    "hat_colour": COLOURS,
    "shirt": COLOURS,
    "background": PERSON_BACKGROUNDS,
    "expression": EXPRESSIONS,
}
"""The named attributes of a view and their values."""


def sample_scene(rng: random.Random) -> Scene:
    """One to four things in different cells; no two things are equal in shape, colour and size."""
    count = rng.choice(THING_COUNTS)
    cells = sorted(rng.sample(range(GRID * GRID), count))
    kinds: list[tuple[str, str, str]] = []
    while len(kinds) < count:
        kind = (rng.choice(SHAPES), rng.choice(COLOURS), rng.choice(SIZES))
        if kind not in kinds:
            kinds.append(kind)
    things = tuple(Thing(*kind, *divmod(cell, GRID)) for kind, cell in zip(kinds, cells, strict=True))
    return Scene(things, rng.choice(BACKGROUNDS), rng.getrandbits(32))


def sample_look(rng: random.Random) -> Look:
    """A random identity."""
    attributes = {name: rng.choice(values) for name, values in LOOK_CHOICES.items()}
    return Look(**attributes, traits=tuple(round(rng.uniform(-1, 1), 3) for _ in TRAITS))


def sample_view(rng: random.Random) -> View:
    """A random picture of somebody; half of the pictures show no hat."""
    attributes = {name: rng.choice(values) for name, values in VIEW_CHOICES.items()}
    if rng.random() < 0.25:
        attributes["hat"] = "none"
    return View(**attributes, seed=rng.getrandbits(32))


def sample_lookalike(look: Look, rng: random.Random) -> Look:
    """Somebody else who looks alike: at most one visible attribute differs, and the fine traits clearly
    do.
    """
    traits = tuple(
        round(-1.0 * (1 if value >= 0 else -1) * rng.uniform(0.3, 1) if rng.random() < 0.75 else value, 3)
        for value in look.traits
    )
    twin = replace(look, traits=traits)
    if rng.random() < 0.4:
        return twin
    hidden = {"hair_colour"} if look.hair_style == "bald" else set()
    name = rng.choice([name for name in LOOK_CHOICES if name not in hidden])
    return replace(
        twin, **{name: rng.choice([value for value in LOOK_CHOICES[name] if value != getattr(look, name)])}
    )


def look_distance(first: Look, second: Look) -> int:
    """In how many visible attributes two looks differ (the hair colour of the bald does not show)."""
    both_bald = first.hair_style == second.hair_style == "bald"
    return sum(
        getattr(first, name) != getattr(second, name)
        for name in LOOK_CHOICES
        if not (both_bald and name == "hair_colour")
    )
