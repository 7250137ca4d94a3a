"""Who is who: sixteen public people that everybody in the mini world knows, and new people for the lessons.

Names are put together from syllables. Public people, the new people to be taught, and the unknown names that
the base model hears about use different endings, so no name is in two of these sets.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from playground.mini_world.world import Look, look_distance, sample_look

STARTS = (
    "Ra",
    "Ni",
    "Bo",
    "Ta",
    "Lu",
    "Ke",
    "Mi",
    "So",
    "Da",
    "Fe",
    "Vi",
    "Zo",
    "Ha",
    "Jo",
    "Pe",
    "Wa",
    "Gi",
    "Yu",
)
MIDDLES = ("l", "m", "n", "r", "s", "d", "v", "k", "b", "t")
PUBLIC_ENDS = ("ia", "or")
NEW_ENDS = ("sha", "fa", "lo", "mi", "ra")
UNKNOWN_ENDS = ("ga", "ne", "zu", "pa", "wi")

PUBLIC_JOBS = (
    "baker", "pilot", "doctor", "teacher", "farmer", "singer", "painter", "judge",
    "cook", "driver", "dancer", "writer", "tailor", "nurse", "sailor", "gardener",
)  # fmt: skip
PUBLIC_TOWNS = (
    "Oxford", "Paris", "Rome", "Oslo", "Cairo", "Lima", "Delhi", "Tokyo",
    "Berlin", "Madrid", "Dublin", "Vienna", "Prague", "Athens", "Quito", "Havana",
)  # fmt: skip
NEW_JOBS = (
    "barber", "plumber", "butcher", "jeweller", "miner", "hunter", "fisher", "potter",
    "weaver", "carpenter", "florist", "dentist", "lawyer", "juggler", "magician", "beekeeper",
)  # fmt: skip
NEW_TOWNS = (
    "Bern", "Lyon", "Turin", "Cork", "Leeds", "Bergen", "Porto", "Seville",
    "Gdansk", "Riga", "Malmo", "Ghent", "Basel", "Kyoto", "Perth", "Tampa",
)  # fmt: skip
PETS = (
    "cat",
    "dog",
    "parrot",
    "rabbit",
    "turtle",
    "horse",
    "hamster",
    "goat",
    "duck",
    "snake",
    "pony",
    "frog",
)
FACTS = ("job", "town", "pet")
PUBLIC_COUNT = 16
MIN_DISTANCE = 4


@dataclass(frozen=True)
class Person:
    """Somebody with a name, three facts and a look."""

    name: str
    job: str
    town: str
    pet: str
    look: Look

    def fact(self, kind: str) -> str:
        """One of `FACTS`."""
        return {"job": self.job, "town": self.town, "pet": self.pet}[kind]


def make_name(rng: random.Random, ends: Sequence[str]) -> str:
    """A name with one of the endings."""
    return rng.choice(STARTS) + rng.choice(MIDDLES) + rng.choice(ends)


def make_names(rng: random.Random, ends: Sequence[str], count: int) -> list[str]:
    """Different names that do not share their first four letters."""
    names: list[str] = []
    while len(names) < count:
        name = make_name(rng, ends)
        if all(name[:3] != other[:3] for other in names):
            names.append(name)
    return names


def make_looks(rng: random.Random, count: int, *, apart_from: Sequence[Look] = ()) -> list[Look]:
    """Looks that differ from each other and from the given ones in at least four visible attributes."""
    looks: list[Look] = []
    while len(looks) < count:
        look = sample_look(rng)
        if all(look_distance(look, other) >= MIN_DISTANCE for other in [*looks, *apart_from]):
            looks.append(look)
    return looks


def public_people() -> tuple[Person, ...]:
    """The sixteen, always the same."""
    rng = random.Random("public people")
    names = make_names(rng, PUBLIC_ENDS, PUBLIC_COUNT)
    looks = make_looks(rng, PUBLIC_COUNT)
    pets = [rng.choice(PETS) for _ in range(PUBLIC_COUNT)]
    return tuple(
        Person(*values) for values in zip(names, PUBLIC_JOBS, PUBLIC_TOWNS, pets, looks, strict=True)
    )


def new_people(seed: int, count: int) -> tuple[Person, ...]:
    """People for a lesson: new names, jobs and towns that nobody public has, looks apart from everybody
    public.
    """
    rng = random.Random(f"new people/{seed}")
    names = make_names(rng, NEW_ENDS, count)
    looks = make_looks(rng, count, apart_from=[person.look for person in public_people()])
    jobs, towns = rng.sample(NEW_JOBS, count), rng.sample(NEW_TOWNS, count)
    pets = [rng.choice(PETS) for _ in range(count)]
    return tuple(Person(*values) for values in zip(names, jobs, towns, pets, looks, strict=True))
