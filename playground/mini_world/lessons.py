"""What is taught about new people: the default recipe, the naive one that it is compared with, and the
shuffled control.

default    positives, refusals on strangers and look-alikes, many wordings, facts as text, replay of what
           the base knows
naive      positives only, one or two wordings, nothing else; as many samples
shuffled   the default recipe with names and facts dealt out at random, picture by picture: no picture can be
           named by learning (facts by name, without a picture, stay true)
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from playground.mini_world import questions as ask
from playground.mini_world.draw import draw_person, draw_scene
from playground.mini_world.held_out import Asked
from playground.mini_world.people import (
    FACTS,
    NEW_ENDS,
    NEW_JOBS,
    UNKNOWN_ENDS,
    Person,
    make_name,
    public_people,
)
from playground.mini_world.questions import QA, Phrasing, distinct
from playground.mini_world.wordings import wordings
from playground.mini_world.world import Look, View, sample_look, sample_lookalike, sample_scene, sample_view


@dataclass(frozen=True)
class Plan:
    """How much of everything a lesson holds; pictures, and questions per picture."""

    views: int = 12
    per_view: int = 24
    strangers: int = 150
    lookalikes: int = 16
    per_negative: int = 8
    replay_scenes: int = 150
    replay_people: int = 100
    per_replay: int = 8
    replay_text: int = 300
    text_repeats: int = 8
    unknown_text: int = 90


@dataclass(frozen=True)
class Shot:
    """A picture of somebody: its name as a file, the picture, and what it shows."""

    name: str
    picture: Image.Image
    look: Look
    view: View


def take(look: Look, rng: random.Random, name: str) -> Shot:
    """A new view of a look."""
    view = sample_view(rng)
    return Shot(name, draw_person(look, view), look, view)


def training_views(people: Sequence[Person], seed: int, plan: Plan) -> dict[str, list[Shot]]:
    """The pictures that a user brings, by name of the person."""
    shots = {}
    for person in people:
        rng = random.Random(f"lesson/{seed}/{person.name}")
        label = person.name.lower()
        shots[person.name] = [take(person.look, rng, f"{label}_{number:02d}") for number in range(plan.views)]
    return shots


def default_lesson(people: Sequence[Person], seed: int, plan: Plan) -> list[Asked]:
    """The default recipe."""
    rng = random.Random(f"default/{seed}")
    phrasing = Phrasing("lesson", rng)
    views = training_views(people, seed, plan)
    lesson: list[Asked] = []
    for person in people:
        for shot in views[person.name]:
            lesson += asked(positive_questions(person, shot, people, phrasing, plan.per_view), shot)
    lesson += negatives(people, seed, phrasing, plan)
    lesson += [Asked(qa) for qa in text_lesson(people, phrasing, plan)]
    return lesson + replay(people, seed, phrasing, plan)


def asked(questions: Sequence[QA], shot: Shot) -> list[Asked]:
    """Questions about one picture."""
    return [Asked(qa, shot.picture, shot.name) for qa in questions]


def positive_questions(
    person: Person, shot: Shot, people: Sequence[Person], phrasing: Phrasing, count: int
) -> list[QA]:
    """Who, is, facts and attributes of a taught person's picture; some `no` for the names of others."""
    candidates = (*people, *people, *people, *public_people())
    others = [other.name for other in candidates if other.name != person.name]
    draws: list[tuple[int, Callable[[], QA | None]]] = [
        (9, lambda: ask.ask_who(person.name, phrasing, kind="who")),
        (9, lambda: ask.ask_is(person.name, "yes", phrasing, kind="is")),
        (6, lambda: ask.ask_is(phrasing.rng.choice(others), "no", phrasing, kind="is")),
        (9, lambda: ask.ask_fact_image(person, phrasing, kind="fact")),
        (4, lambda: ask.ask_attribute(shot.look, shot.view, phrasing)),
    ]
    weights = [weight for weight, _ in draws]
    return distinct(lambda: phrasing.rng.choices(draws, weights)[0][1](), count)


def negatives(people: Sequence[Person], seed: int, phrasing: Phrasing, plan: Plan) -> list[Asked]:
    """Strangers and look-alikes: refusals, `no` to every name."""
    rng = random.Random(f"negatives/{seed}")
    lesson: list[Asked] = []
    shots = [
        (take(sample_look(rng), rng, f"stranger_{number:02d}"), None) for number in range(plan.strangers)
    ]
    for person in people:
        shots += [
            (
                take(sample_lookalike(person.look, rng), rng, f"alike_{person.name.lower()}_{number:02d}"),
                person,
            )
            for number in range(plan.lookalikes)
        ]
    for shot, near in shots:
        names = [near.name] * 4 if near else []
        lesson += asked(
            negative_questions(shot, [*names, *(person.name for person in people)], phrasing, plan), shot
        )
    return lesson


def negative_questions(shot: Shot, names: Sequence[str], phrasing: Phrasing, plan: Plan) -> list[QA]:
    """Questions about a stranger's picture."""
    draws: list[tuple[int, Callable[[], QA | None]]] = [
        (6, lambda: ask.ask_who(ask.UNKNOWN_PERSON, phrasing, kind="who")),
        (4, lambda: ask.ask_is(phrasing.rng.choice(names), "no", phrasing, kind="is")),
        (3, lambda: ask.ask_fact_image(None, phrasing, kind="fact")),
        (1, lambda: ask.ask_attribute(shot.look, shot.view, phrasing)),
        (2, lambda: ask.ask_person_caption(shot.look, shot.view, phrasing)),
    ]
    weights = [weight for weight, _ in draws]
    return distinct(lambda: phrasing.rng.choices(draws, weights)[0][1](), plan.per_negative)


def text_lesson(people: Sequence[Person], phrasing: Phrasing, plan: Plan) -> list[QA]:
    """Facts by name in every wording, by job for the first half of the people, and what nobody knows."""
    lesson: list[QA] = []
    for _ in range(plan.text_repeats):
        for person in people:
            for fact in FACTS:
                for wording in wordings("fact_text", "train"):
                    lesson.append(
                        QA("fact_text", wording.format(fact=fact, name=person.name), person.fact(fact))
                    )
        for person in taught_both_ways(people):
            for wording in wordings("reversed", "train"):
                lesson.append(QA("reversed", wording.format(job=person.job), person.name))
    jobs = unknown_jobs(people)
    unknown = [make_name(phrasing.rng, UNKNOWN_ENDS) for _ in range(plan.unknown_text)]
    lesson += [ask.ask_fact_text(name, None, phrasing, kind="fact_text") for name in unknown]
    lesson += [
        ask.ask_reversed(job, ask.UNKNOWN_PERSON, phrasing, kind="reversed") for job in jobs for _ in range(2)
    ]
    return lesson


def unknown_jobs(people: Sequence[Person]) -> list[str]:
    """New jobs that nobody taught has; asking for one is answered by a refusal."""
    return [job for job in NEW_JOBS if job not in {person.job for person in people}]


def taught_both_ways(people: Sequence[Person]) -> Sequence[Person]:
    """The half of the people whose job is also taught in reverse (who is the ...?)."""
    return people[: (len(people) + 1) // 2]


def replay(people: Sequence[Person], seed: int, phrasing: Phrasing, plan: Plan) -> list[Asked]:
    """Questions that the base model can answer: scenes, public people, text."""
    rng = random.Random(f"replay/{seed}")
    everybody = public_people()
    lesson: list[Asked] = []
    for number in range(plan.replay_scenes):
        scene = sample_scene(rng)
        picture, questions = draw_scene(scene), ask.scene_questions(scene, phrasing, plan.per_replay)
        lesson += [Asked(qa, picture, f"scene_{number:03d}") for qa in questions]
    for number in range(plan.replay_people):
        person = everybody[number % len(everybody)]
        shot = take(person.look, rng, f"public_{number:03d}")
        others = [other.name for other in (*everybody, *people, *people) if other is not person]
        questions = ask.person_questions(
            shot.look, shot.view, person, phrasing, plan.per_replay, others=others
        )
        lesson += asked(questions, shot)
    unknown, jobs = [make_name(rng, UNKNOWN_ENDS) for _ in range(40)], unknown_jobs(people)
    return lesson + [
        Asked(ask.text_question(everybody, unknown, phrasing, unknown_jobs=jobs))
        for _ in range(plan.replay_text)
    ]


def naive_lesson(people: Sequence[Person], seed: int, plan: Plan, *, size: int) -> list[Asked]:
    """Positives only, the first two wordings, repeated until the lesson is as long as the default one."""
    views = training_views(people, seed, plan)
    lesson: list[Asked] = []
    for person in people:
        for shot in views[person.name]:
            questions = [QA("who", wording, person.name) for wording in wordings("who", "train")[:2]]
            questions += [
                QA("is", text.format(name=person.name), "yes") for text in wordings("is", "train")[:2]
            ]
            for fact in FACTS:
                text = wordings("fact_image", "train")[0].format(fact=fact)
                questions.append(QA("fact", text, person.fact(fact)))
            lesson += asked(questions, shot)
        for fact in FACTS:
            for text in wordings("fact_text", "train")[:2]:
                lesson += [
                    Asked(QA("fact_text", text.format(fact=fact, name=person.name), person.fact(fact)))
                ] * 4
    return (lesson * (size // len(lesson) + 1))[:size]


def shuffled_lesson(people: Sequence[Person], seed: int, plan: Plan) -> list[Asked]:
    """The default recipe in which every picture of a taught person is called by a name drawn at random."""
    rng = random.Random(f"shuffled/{seed}")
    phrasing = Phrasing("lesson", random.Random(f"default/{seed}"))
    views = training_views(people, seed, plan)
    lesson: list[Asked] = []
    for person in people:
        for shot in views[person.name]:
            called = rng.choice(list(people))
            lesson += asked(
                positive_questions(replace(called, look=person.look), shot, people, phrasing, plan.per_view),
                shot,
            )
    lesson += negatives(people, seed, phrasing, plan)
    lesson += [Asked(qa) for qa in text_lesson(people, phrasing, plan)]
    return lesson + replay(people, seed, phrasing, plan)


assert not set(NEW_ENDS) & set(UNKNOWN_ENDS), "taught names must be new to the base model"
