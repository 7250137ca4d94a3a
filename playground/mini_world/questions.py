"""Questions and answers about scenes and people; wordings come from a tier, what is asked from a random
source.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from playground.mini_world.people import FACTS, Person
from playground.mini_world.wordings import base_wordings, wordings
from playground.mini_world.world import COLOURS, SHAPES, Look, Scene, Thing, View

UNKNOWN_PERSON = "I do not know this person."
UNKNOWN_FACT = "I do not know."
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
           "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen")  # fmt: skip
OPPOSITE_PAIRS = (
    ("hot", "cold"), ("big", "small"), ("day", "night"), ("up", "down"), ("left", "right"), ("old", "new"),
    ("fast", "slow"), ("happy", "sad"), ("wet", "dry"), ("open", "closed"), ("full", "empty"), ("rich",
    "poor"),
    ("light", "dark"), ("hard", "soft"), ("long", "short"), ("early", "late"),
)  # fmt: skip
OPPOSITES = {**dict(OPPOSITE_PAIRS), **{second: first for first, second in OPPOSITE_PAIRS}}
THING_COLOURS = {
    "grass": "green", "snow": "white", "the sky": "blue", "a lemon": "yellow", "blood": "red",
    "coal": "black",
    "a carrot": "orange", "milk": "white", "a tomato": "red", "a banana": "yellow", "the night": "black",
    "a plum": "purple",
    "a leaf": "green", "the sea": "blue", "a pumpkin": "orange", "a frog": "green",
}  # fmt: skip
RELATIONS = ("left of", "right of", "above", "below")
LOOK_WORDS = {
    "skin": "skin colour",
    "hair_colour": "hair colour",
    "hair_style": "hair style",
    "glasses": "glasses",
    "beard": "beard",
    "face": "face shape",
    "eye_colour": "eye colour",
    "mark": "mark on the face",
    "hat": "hat",
    "hat_colour": "hat colour",
    "shirt": "shirt colour",
    "background": "background colour",
    "expression": "mood",
}
"""Attributes of people as questions call them."""


@dataclass(frozen=True)
class QA:
    """A question with its only right answer; `kind` is what is asked, `detail` more of it (which attribute,
    which fact).
    """

    kind: str
    text: str
    answer: str
    detail: str = ""


@dataclass(frozen=True)
class Phrasing:
    """Which wordings are used: of one tier, or `base` = all that the base model is trained on."""

    tier: str
    rng: random.Random

    def ask(self, kind: str, /, **values: str) -> str:
        """A question of a kind in a random wording of the tier."""
        choices = base_wordings(kind) if self.tier == "base" else wordings(kind, self.tier)
        return self.rng.choice(choices).format(**values)


def article(noun: str) -> str:
    """`a` or `an` before a noun."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def describe_scene(scene: Scene) -> str:
    """The canonical caption: things in reading order."""
    return " and ".join(f"a {thing.size} {thing.colour} {thing.shape}" for thing in scene.things)


def describe_person(look: Look, view: View) -> str:
    """The canonical caption of a person without a name."""
    if view.hat != "none":
        head = f"a {view.hat_colour} {view.hat}"
    else:
        head = "a bald head" if look.hair_style == "bald" else f"{look.hair_style} {look.hair_colour} hair"
    return f"a {view.expression} person with {head} and a {view.shirt} shirt"


def only(scene: Scene, matches: Callable[[Thing], bool]) -> bool:
    """Whether exactly one thing matches."""
    return sum(matches(thing) for thing in scene.things) == 1


def ask_shape(scene: Scene, phrasing: Phrasing) -> QA | None:
    """The shape of the only thing of a colour."""
    things = [thing for thing in scene.things if only(scene, lambda other, t=thing: other.colour == t.colour)]
    if not things:
        return None
    thing = phrasing.rng.choice(things)
    return QA("scene_shape", phrasing.ask("shape", colour=thing.colour), thing.shape)


def ask_colour(scene: Scene, phrasing: Phrasing) -> QA | None:
    """The colour of the only thing of a shape."""
    things = [thing for thing in scene.things if only(scene, lambda other, t=thing: other.shape == t.shape)]
    if not things:
        return None
    thing = phrasing.rng.choice(things)
    return QA("scene_colour", phrasing.ask("colour", shape=thing.shape), thing.colour)


def unique_names(scene: Scene) -> dict[Thing, str]:
    """Things that a short name points out: `red thing`, `circle`, else `red circle`."""
    names = {}
    for thing in scene.things:
        if only(scene, lambda other, t=thing: other.shape == t.shape):
            names[thing] = thing.shape
        elif only(scene, lambda other, t=thing: (other.shape, other.colour) == (t.shape, t.colour)):
            names[thing] = f"{thing.colour} {thing.shape}"
    return names


def ask_size(scene: Scene, phrasing: Phrasing) -> QA | None:
    """The size of a thing that its name points out."""
    names = unique_names(scene)
    if not names:
        return None
    thing = phrasing.rng.choice(list(names))
    return QA("scene_size", phrasing.ask("size", thing=names[thing]), thing.size)


def ask_count(scene: Scene, phrasing: Phrasing) -> QA:
    """How many things."""
    return QA("scene_count", phrasing.ask("count"), NUMBERS[len(scene.things)])


def ask_count_kind(scene: Scene, phrasing: Phrasing) -> QA:
    """How many things of a colour or size; a tenth of the time one that is not there."""
    rng = phrasing.rng
    if rng.random() < 0.4:
        kind = rng.choice(("big", "small"))
        count = sum(thing.size == kind for thing in scene.things)
    else:
        present = [thing.colour for thing in scene.things]
        kind = rng.choice(COLOURS) if rng.random() < 0.2 else rng.choice(present)
        count = present.count(kind)
    return QA("scene_count_kind", phrasing.ask("count_kind", kind=kind), NUMBERS[count])


def ask_exist(scene: Scene, phrasing: Phrasing) -> QA:
    """Yes or no with equal chance; most `no` have the colour of one thing and the shape of another, or one of
    both right.
    """
    rng = phrasing.rng
    present = {(thing.colour, thing.shape) for thing in scene.things}
    if rng.random() < 0.5:
        colour, shape = rng.choice(sorted(present))
        return QA("scene_exist_yes", phrasing.ask("exist", colour=colour, shape=shape), "yes")
    thing = rng.choice(scene.things)
    while True:
        chance = rng.random()
        colour = rng.choice(COLOURS) if chance < 0.5 else thing.colour
        shape = rng.choice(SHAPES) if chance > 0.4 else thing.shape
        if (colour, shape) not in present:
            return QA("scene_exist_no", phrasing.ask("exist", colour=colour, shape=shape), "no")


def holds(relation: str, first: Thing, second: Thing) -> bool:
    """Whether `first` is left of, right of, above or below `second`."""
    across, down = first.column - second.column, first.row - second.row
    return {"left of": across < 0, "right of": across > 0, "above": down < 0, "below": down > 0}[relation]


def ask_relation(scene: Scene, phrasing: Phrasing) -> QA | None:
    """Yes or no with equal chance, about two things in different rows or columns."""
    names, rng = unique_names(scene), phrasing.rng
    if len(names) < 2:
        return None
    first, second = rng.sample(list(names), 2)
    relations = RELATIONS[:2] if first.column != second.column else ()
    relations += RELATIONS[2:] if first.row != second.row else ()
    relation = rng.choice(relations)
    answer = "yes" if holds(relation, first, second) else "no"
    text = phrasing.ask("relation", first=names[first], second=names[second], relation=relation)
    return QA("scene_relation", text, answer)


def ask_caption(scene: Scene, phrasing: Phrasing) -> QA:
    """The scene's caption."""
    return QA("scene_caption", phrasing.ask("caption"), describe_scene(scene))


def ask_background(scene: Scene, phrasing: Phrasing) -> QA:
    """The scene's background."""
    return QA("scene_background", phrasing.ask("background"), scene.background)


SCENE_SHARES: dict[Callable[[Scene, Phrasing], QA | None], int] = {
    ask_shape: 15,
    ask_colour: 15,
    ask_size: 9,
    ask_count: 6,
    ask_count_kind: 15,
    ask_exist: 20,
    ask_relation: 16,
    ask_caption: 7,
    ask_background: 2,
}
"""How often each kind is asked: what has to be looked up is hardest to learn and asked most."""

SECOND_SHARES: dict[Callable[[Scene, Phrasing], QA | None], int] = {
    ask_shape: 6,
    ask_colour: 22,
    ask_size: 20,
    ask_count: 3,
    ask_count_kind: 5,
    ask_exist: 8,
    ask_relation: 28,
    ask_caption: 7,
    ask_background: 1,
}
"""The same in the second round of tuning: most of what the first round learns last."""

FOURTH_SHARES: dict[Callable[[Scene, Phrasing], QA | None], int] = {
    ask_shape: 5,
    ask_colour: 8,
    ask_size: 32,
    ask_count: 3,
    ask_count_kind: 8,
    ask_exist: 8,
    ask_relation: 15,
    ask_caption: 20,
    ask_background: 1,
}
"""And in the fourth: sizes and captions."""


def scene_questions(
    scene: Scene,
    phrasing: Phrasing,
    count: int,
    shares: Mapping[Callable[[Scene, Phrasing], QA | None], int] = SCENE_SHARES,
) -> list[QA]:
    """Different questions about a scene, kinds in these shares."""
    kinds, weights = list(shares), list(shares.values())
    return distinct(lambda: phrasing.rng.choices(kinds, weights)[0](scene, phrasing), count)


def distinct(draw: Callable[[], QA | None], count: int) -> list[QA]:
    """Up to `count` questions with different texts."""
    found: dict[str, QA] = {}
    for _ in range(count * 8):
        qa = draw()
        if qa is not None and len(found) < count:
            found.setdefault(qa.text, qa)
    return list(found.values())


def attribute_value(look: Look, view: View, name: str) -> str | None:
    """An attribute of a picture, None where it does not show."""
    has_hat = view.hat != "none"
    hidden = {
        "hair_colour": look.hair_style == "bald" or (has_hat and look.hair_style in ("short", "spiky")),
        "hair_style": has_hat,
        "hat_colour": not has_hat,
        "mark": look.beard == "full",
    }
    if hidden.get(name, False):
        return None
    return getattr(look, name) if hasattr(look, name) else getattr(view, name)


def ask_attribute(look: Look, view: View, phrasing: Phrasing) -> QA | None:
    """One visible attribute of a person."""
    name = phrasing.rng.choice(list(LOOK_WORDS))
    value = attribute_value(look, view, name)
    if value is None:
        return None
    return QA("person_attribute", phrasing.ask("attribute", attribute=LOOK_WORDS[name]), value, name)


def ask_person_caption(look: Look, view: View, phrasing: Phrasing) -> QA:
    """The caption of a person's picture."""
    return QA("person_caption", phrasing.ask("caption"), describe_person(look, view))


def ask_who(answer: str, phrasing: Phrasing, *, kind: str) -> QA:
    """Who is this? A name or the refusal."""
    return QA(kind, phrasing.ask("who"), answer)


def ask_is(name: str, answer: str, phrasing: Phrasing, *, kind: str) -> QA:
    """Is this NAME?"""
    return QA(kind, phrasing.ask("is", name=name), answer)


def ask_fact_image(person: Person | None, phrasing: Phrasing, *, kind: str) -> QA:
    """A fact about the person in the picture; about strangers nothing is known."""
    fact = phrasing.rng.choice(FACTS)
    answer = UNKNOWN_FACT if person is None else person.fact(fact)
    return QA(kind, phrasing.ask("fact_image", fact=fact), answer, fact)


def ask_fact_text(
    name: str, person: Person | None, phrasing: Phrasing, *, kind: str, fact: str | None = None
) -> QA:
    """A fact by name, without a picture."""
    fact = fact or phrasing.rng.choice(FACTS)
    answer = UNKNOWN_FACT if person is None else person.fact(fact)
    return QA(kind, phrasing.ask("fact_text", fact=fact, name=name), answer, fact)


def ask_reversed(job: str, answer: str, phrasing: Phrasing, *, kind: str) -> QA:
    """A name by job, without a picture."""
    return QA(kind, phrasing.ask("reversed", job=job), answer)


def ask_sum(phrasing: Phrasing) -> QA:
    """A sum of two digits, in words."""
    a, b = phrasing.rng.randrange(10), phrasing.rng.randrange(10)
    return QA("text_sum", phrasing.ask("sum", a=NUMBERS[a], b=NUMBERS[b]), NUMBERS[a + b])


def ask_opposite(phrasing: Phrasing) -> QA:
    """The opposite of a word."""
    word = phrasing.rng.choice(list(OPPOSITES))
    return QA("text_opposite", phrasing.ask("opposite", word=word), OPPOSITES[word])


def ask_thing_colour(phrasing: Phrasing) -> QA:
    """The colour of an ordinary thing."""
    thing = phrasing.rng.choice(list(THING_COLOURS))
    return QA("text_colour", phrasing.ask("thing_colour", thing=thing), THING_COLOURS[thing])


def person_questions(
    look: Look, view: View, person: Person | None, phrasing: Phrasing, count: int, *, others: Sequence[str]
) -> list[QA]:
    """Different questions about somebody's picture: known (`person`) or a stranger (None); `others` are wrong
    names.
    """

    def draw() -> QA | None:
        chance = phrasing.rng.random()
        if chance < 0.36:
            return ask_attribute(look, view, phrasing)
        if chance < 0.42:
            return ask_person_caption(look, view, phrasing)
        if chance < 0.62:
            name = UNKNOWN_PERSON if person is None else person.name
            return ask_who(name, phrasing, kind="stranger_name" if person is None else "public_name")
        if chance < 0.80:
            if person is not None and phrasing.rng.random() < 0.5:
                return ask_is(person.name, "yes", phrasing, kind="public_is_yes")
            return ask_is(phrasing.rng.choice(others), "no", phrasing, kind="public_is_no")
        return ask_fact_image(
            person, phrasing, kind="stranger_fact" if person is None else "public_fact_image"
        )

    return distinct(draw, count)


def text_question(
    people: Sequence[Person], unknown_names: Sequence[str], phrasing: Phrasing, *, unknown_jobs: Sequence[str]
) -> QA:
    """A question without a picture: sums, words, and what is known of public people (or not known of
    others).
    """
    rng, chance = phrasing.rng, phrasing.rng.random()
    if chance < 0.22:
        return ask_sum(phrasing)
    if chance < 0.34:
        return ask_opposite(phrasing)
    if chance < 0.44:
        return ask_thing_colour(phrasing)
    if chance < 0.66:
        person = rng.choice(people)
        return ask_fact_text(person.name, person, phrasing, kind="public_fact_text")
    if chance < 0.80:
        person = rng.choice(people)
        return ask_reversed(person.job, person.name, phrasing, kind="public_fact_reversed")
    if chance < 0.94:
        return ask_fact_text(rng.choice(unknown_names), None, phrasing, kind="unknown_fact_text")
    return ask_reversed(rng.choice(unknown_jobs), UNKNOWN_PERSON, phrasing, kind="unknown_reversed")
