"""Questions that measure what the base model can do, on pictures that nobody is trained on: the retention
splits.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from PIL import Image

from playground.mini_world import questions as ask
from playground.mini_world.draw import draw_person, draw_scene
from playground.mini_world.people import (
    NEW_JOBS,
    PUBLIC_COUNT,
    UNKNOWN_ENDS,
    Person,
    make_name,
    public_people,
)
from playground.mini_world.questions import QA, Phrasing
from playground.mini_world.world import sample_look, sample_lookalike, sample_scene, sample_view

SCENE_SPLITS = (
    "scene_shape", "scene_colour", "scene_size", "scene_count", "scene_count_kind", "scene_exist_yes",
    "scene_exist_no", "scene_relation", "scene_caption",
)  # fmt: skip
PERSON_SPLITS = ("person_attribute", "person_caption", "stranger_name", "stranger_fact")
PUBLIC_SPLITS = ("public_name", "public_is_yes", "public_is_no", "public_fact_image")
TEXT_SPLITS = ("public_fact_text", "public_fact_reversed", "text_sum", "text_opposite", "text_colour")
MAX_CANDIDATES = 100
MAX_TEXTS = 20000
RETENTION_SPLITS = SCENE_SPLITS + PERSON_SPLITS + PUBLIC_SPLITS + TEXT_SPLITS


@dataclass(frozen=True)
class Asked:
    """A question, with its picture or None, and the picture's name (equal for questions about one
    picture).
    """

    qa: QA
    picture: Image.Image | None = None
    picture_name: str | None = None


def retention_questions(name: str, *, per_split: int, tiers: Sequence[str]) -> list[Asked]:
    """`per_split` questions of every retention split (fewer where so many different ones do not exist).

    Pictures and questions follow from `name`, wordings from the tiers.
    """
    rng = random.Random(f"retention/{name}")
    counts = dict.fromkeys(RETENTION_SPLITS, 0)
    found: list[Asked] = []
    sources = (
        scene_candidates(name, rng, tiers),
        people_candidates(name, rng, tiers),
        text_candidates(rng, tiers),
    )
    for splits, source in zip(
        (SCENE_SPLITS, PERSON_SPLITS + PUBLIC_SPLITS, TEXT_SPLITS), sources, strict=True
    ):
        for asked in islice(source, MAX_CANDIDATES * per_split):
            if all(counts[split] >= per_split for split in splits):
                break
            if counts[asked.qa.kind] < per_split:
                counts[asked.qa.kind] += 1
                found.append(asked)
    return sorted(found, key=lambda asked: RETENTION_SPLITS.index(asked.qa.kind))


def phrasing_of(rng: random.Random, tiers: Sequence[str]) -> Phrasing:
    """Wordings of one of the tiers."""
    return Phrasing(rng.choice(tiers), rng)


def scene_candidates(name: str, rng: random.Random, tiers: Sequence[str]) -> Iterator[Asked]:
    """Questions of all kinds about one scene after another."""
    kinds = (ask.ask_shape, ask.ask_colour, ask.ask_size, ask.ask_count, ask.ask_count_kind, ask.ask_exist,
    ask.ask_exist,
             ask.ask_relation, ask.ask_caption)  # fmt: skip
    number = 0
    while True:
        scene = sample_scene(random.Random(f"retention/{name}/scene/{number}"))
        picture = draw_scene(scene)
        for kind in rng.sample(kinds, 4):
            qa = kind(scene, phrasing_of(rng, tiers))
            if qa is not None:
                yield Asked(qa, picture, f"{name}_scene_{number}")
        number += 1


def people_candidates(name: str, rng: random.Random, tiers: Sequence[str]) -> Iterator[Asked]:
    """Questions about strangers (a third of them look-alikes of public people) and public people in turn."""
    everybody = public_people()
    number = 0
    while True:
        source = random.Random(f"retention/{name}/person/{number}")
        public = everybody[(number // 2) % PUBLIC_COUNT]
        person: Person | None = public if number % 2 else None
        stranger = sample_lookalike(public.look, source) if number % 3 == 0 else sample_look(source)
        look, view = (stranger if person is None else public.look), sample_view(source)
        picture, phrasing = draw_person(look, view), phrasing_of(rng, tiers)
        others = [other.name for other in everybody if other is not person]
        for qa in person_kinds(person, phrasing, others):
            yield Asked(qa, picture, f"{name}_person_{number}")
        for qa in (ask.ask_attribute(look, view, phrasing), ask.ask_person_caption(look, view, phrasing)):
            if qa is not None:
                yield Asked(qa, picture, f"{name}_person_{number}")
        number += 1


def person_kinds(person: Person | None, phrasing: Phrasing, others: Sequence[str]) -> list[QA]:
    """Who, is, and a fact about a public person or (None) a stranger."""
    if person is None:
        return [
            ask.ask_who(ask.UNKNOWN_PERSON, phrasing, kind="stranger_name"),
            ask.ask_fact_image(None, phrasing, kind="stranger_fact"),
        ]
    return [
        ask.ask_who(person.name, phrasing, kind="public_name"),
        ask.ask_is(person.name, "yes", phrasing, kind="public_is_yes"),
        ask.ask_is(phrasing.rng.choice(others), "no", phrasing, kind="public_is_no"),
        ask.ask_fact_image(person, phrasing, kind="public_fact_image"),
    ]


def text_candidates(rng: random.Random, tiers: Sequence[str]) -> Iterator[Asked]:
    """Different questions without a picture."""
    seen: set[str] = set()
    unknown = [make_name(rng, UNKNOWN_ENDS) for _ in range(20)]
    for _ in range(MAX_TEXTS):
        qa = ask.text_question(public_people(), unknown, phrasing_of(rng, tiers), unknown_jobs=NEW_JOBS)
        if qa.kind in TEXT_SPLITS and qa.text not in seen:
            seen.add(qa.text)
            yield Asked(qa)
