"""How a lesson is examined: every question about taught people, with its split, on views and wordings kept
apart.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from playground.mini_world import questions as ask
from playground.mini_world.held_out import Asked
from playground.mini_world.lessons import Plan, Shot, take, taught_both_ways, training_views
from playground.mini_world.people import FACTS, Person, public_people
from playground.mini_world.questions import QA, Phrasing
from playground.mini_world.wordings import wordings
from playground.mini_world.world import sample_look, sample_lookalike

HELD_OUT_VIEWS = 10
STRANGERS = 60
LOOKALIKES = 8
PUBLIC_PICTURES = 32


@dataclass(frozen=True)
class Item:
    """A question of the examination with its split; `direction` says how a reversed fact was taught."""

    asked: Asked
    split: str
    identity: str | None = None
    seen_wording: bool = True
    direction: str | None = None


def examination(people: Sequence[Person], seed: int, plan: Plan) -> list[Item]:
    """All personal questions, split by split."""
    rng = random.Random(f"examination/{seed}")
    seen, new = Phrasing("train", rng), Phrasing("people_test", rng)
    views = {
        person.name: [
            take(person.look, rng, f"test_{person.name.lower()}_{k:02d}") for k in range(HELD_OUT_VIEWS)
        ]
        for person in people
    }
    items = [*naming(people, views, seen, new), *seen_views(people, seed, plan, seen)]
    items += [*refusals(people, rng, seen, new), *public_pictures(people, rng, seen)]
    items += [*facts_by_picture(people, views, seen, new), *facts_by_text(people)]
    items += attributes(people, views, seen)
    return sorted(items, key=lambda item: item.split)


def about(qa: QA, shot: Shot) -> Asked:
    """A question with its picture."""
    return Asked(qa, shot.picture, shot.name)


def seen_views(people: Sequence[Person], seed: int, plan: Plan, seen: Phrasing) -> Iterator[Item]:
    """Names on pictures of the lesson itself: memory, not recognition."""
    views = training_views(people, seed, plan)
    for person in people:
        for shot in views[person.name][:5]:
            yield Item(about(ask.ask_who(person.name, seen, kind="who"), shot), "name_seen_view", person.name)


def naming(
    people: Sequence[Person], views: dict[str, list[Shot]], seen: Phrasing, new: Phrasing
) -> Iterator[Item]:
    """Names and yes or no on held-out views of taught people."""
    for person in people:
        others = [other.name for other in people if other is not person]
        for shot in views[person.name]:
            name = person.name
            yield Item(about(ask.ask_who(name, seen, kind="who"), shot), "name", name)
            yield Item(
                about(ask.ask_who(name, new, kind="who"), shot), "name_reworded", name, seen_wording=False
            )
            yield Item(about(ask.ask_is(name, "yes", seen, kind="is"), shot), "is_yes", name)
            wrong = seen.rng.choice(others)
            yield Item(about(ask.ask_is(wrong, "no", seen, kind="is"), shot), "is_no_taught", name)


def refusals(people: Sequence[Person], rng: random.Random, seen: Phrasing, new: Phrasing) -> Iterator[Item]:
    """Strangers and look-alikes, asked who they are (both kinds of wording) and whether they are somebody
    taught.
    """
    for number in range(STRANGERS):
        shot = take(sample_look(rng), rng, f"test_stranger_{number:02d}")
        phrasing = new if number % 3 == 2 else seen
        who = ask.ask_who(ask.UNKNOWN_PERSON, phrasing, kind="who")
        yield Item(about(who, shot), "stranger", None, seen_wording=phrasing is seen)
        near = rng.choice(list(people))
        yield Item(about(ask.ask_is(near.name, "no", seen, kind="is"), shot), "is_no_stranger", near.name)
    for person in people:
        for number in range(LOOKALIKES):
            shot = take(
                sample_lookalike(person.look, rng), rng, f"test_alike_{person.name.lower()}_{number:02d}"
            )
            phrasing = new if number % 3 == 2 else seen
            who = ask.ask_who(ask.UNKNOWN_PERSON, phrasing, kind="who")
            yield Item(about(who, shot), "lookalike", person.name, seen_wording=phrasing is seen)
            question = ask.ask_is(person.name, "no", seen, kind="is")
            yield Item(about(question, shot), "is_no_lookalike", person.name)


def public_pictures(people: Sequence[Person], rng: random.Random, seen: Phrasing) -> Iterator[Item]:
    """Public people who are asked whether they are somebody taught."""
    everybody = public_people()
    for number in range(PUBLIC_PICTURES):
        shot = take(everybody[number % len(everybody)].look, rng, f"test_public_{number:02d}")
        near = rng.choice(list(people))
        yield Item(about(ask.ask_is(near.name, "no", seen, kind="is"), shot), "is_no_public", near.name)


def facts_by_picture(
    people: Sequence[Person], views: dict[str, list[Shot]], seen: Phrasing, new: Phrasing
) -> Iterator[Item]:
    """Job, town and pet of the person in a held-out view."""
    for person in people:
        for shot in views[person.name]:
            for fact in FACTS:
                for phrasing, split in ((seen, "fact_image"), (new, "fact_image_reworded")):
                    text = phrasing.ask("fact_image", fact=fact)
                    qa = QA("fact", text, person.fact(fact), fact)
                    yield Item(about(qa, shot), split, person.name, seen_wording=phrasing is seen)


def facts_by_text(people: Sequence[Person]) -> Iterator[Item]:
    """Facts by name, and names by job, without a picture, in every wording."""
    both = {person.name for person in taught_both_ways(people)}
    for person in people:
        for tier, split in (("train", "fact_text"), ("people_test", "fact_text_reworded")):
            for fact in FACTS:
                for wording in wordings("fact_text", tier):
                    qa = QA("fact", wording.format(fact=fact, name=person.name), person.fact(fact), fact)
                    yield Item(Asked(qa), split, person.name, seen_wording=tier == "train")
            for wording in wordings("reversed", tier):
                qa = QA("reversed", wording.format(job=person.job), person.name)
                direction = "both" if person.name in both else "one"
                yield Item(Asked(qa), "fact_reversed", person.name, tier == "train", direction)


def attributes(people: Sequence[Person], views: dict[str, list[Shot]], seen: Phrasing) -> Iterator[Item]:
    """What is visible on taught people: the base could say it before."""
    for person in people:
        for shot in views[person.name]:
            found = [ask.ask_attribute(shot.look, shot.view, seen) for _ in range(4)]
            different = {qa.detail: qa for qa in found if qa is not None}
            for qa in list(different.values())[:3]:
                yield Item(about(qa, shot), "attribute", person.name)
