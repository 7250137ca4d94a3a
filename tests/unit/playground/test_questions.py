"""Questions: tiers are apart, answers are true of what is drawn, yes and no are balanced, names are in one
set only.
"""

import random
import re
from collections import Counter

import pytest

from playground.mini_world import questions as ask
from playground.mini_world.held_out import RETENTION_SPLITS, retention_questions
from playground.mini_world.lessons import Plan, default_lesson, naive_lesson
from playground.mini_world.people import (
    NEW_ENDS,
    NEW_JOBS,
    NEW_TOWNS,
    PUBLIC_JOBS,
    PUBLIC_TOWNS,
    UNKNOWN_ENDS,
    new_people,
    public_people,
)
from playground.mini_world.questions import Phrasing
from playground.mini_world.wordings import LESSON_ONLY, TIERS, WORDINGS, base_wordings, wordings
from playground.mini_world.world import Scene, Thing, look_distance, sample_look, sample_scene, sample_view

SCENE = Scene(
    (
        Thing("circle", "red", "big", 0, 0),
        Thing("star", "blue", "small", 2, 3),
        Thing("ring", "red", "small", 3, 1),
    ),
    "grey",
    0,
)


def words(text: str) -> set[str]:
    """Words of a wording without its gaps and punctuation."""
    return set(re.sub(r"\{.*?\}|[?.,']", " ", text).split())


@pytest.mark.parametrize("kind", WORDINGS)
def test_tiers_are_apart_and_large_enough(kind: str) -> None:
    tiers = [set(wordings(kind, tier)) for tier in TIERS]
    assert len(tiers[0]) >= 5
    assert len(tiers[1]) == 3
    assert len(set.union(*tiers)) == sum(len(tier) for tier in tiers) == len(WORDINGS[kind]) >= 8


def test_wordings_that_nobody_learns_use_known_words() -> None:
    known = set().union(*(words(text) for kind in WORDINGS for text in base_wordings(kind)))
    for kind in WORDINGS:
        for text in wordings(kind, "base_test"):
            assert words(text) <= known, text


def test_answers_are_true() -> None:
    phrasing = Phrasing("train", random.Random(0))
    answers = {}
    for _ in range(300):
        for qa in ask.scene_questions(SCENE, phrasing, 8):
            answers[(qa.kind, qa.text)] = qa.answer
    assert {answer for (kind, _), answer in answers.items() if kind == "scene_count"} == {"three"}
    assert answers[("scene_colour", "What colour is the star?")] == "blue"
    assert ("scene_shape", "What shape is the red thing?") not in answers, "two things are red"
    assert answers[("scene_count_kind", "Count the red things.")] == "two"
    assert answers[("scene_relation", "Is the circle above the star?")] == "yes"
    assert answers[("scene_relation", "Is the star left of the ring?")] == "no"
    for (kind, text), answer in answers.items():
        if kind.startswith("scene_exist"):
            shown = any(f"{thing.colour} {thing.shape}" in text for thing in SCENE.things)
            assert (answer == "yes") == shown, text


def test_yes_and_no_are_balanced() -> None:
    rng = random.Random(1)
    phrasing = Phrasing("train", rng)
    counts: Counter[tuple[str, str]] = Counter()
    for _ in range(2000):
        scene = sample_scene(rng)
        for kind in (ask.ask_exist, ask.ask_relation):
            qa = kind(scene, phrasing)
            if qa is not None:
                counts[(kind.__name__, qa.answer)] += 1
    for kind in ("ask_exist", "ask_relation"):
        yes, no = counts[(kind, "yes")], counts[(kind, "no")]
        assert abs(yes - no) / (yes + no) < 0.08


def test_attributes_that_do_not_show_are_not_asked() -> None:
    rng = random.Random(2)
    for _ in range(300):
        look, view = sample_look(rng), sample_view(rng)
        for name in ask.LOOK_WORDS:
            value = ask.attribute_value(look, view, name)
            if name == "hair_style":
                assert (value is None) == (view.hat != "none")
            if name == "mark" and look.beard == "full":
                assert value is None


def test_people_are_apart() -> None:
    public = public_people()
    assert len({person.name for person in public}) == 16
    assert not set(NEW_JOBS) & set(PUBLIC_JOBS)
    assert not set(NEW_TOWNS) & set(PUBLIC_TOWNS)
    assert not set(NEW_ENDS) & set(UNKNOWN_ENDS)
    for seed in range(5):
        people = new_people(seed, 6)
        everybody = [*public, *people]
        assert len({person.name for person in everybody}) == len(everybody)
        assert len({person.job for person in everybody}) == len(everybody)
        for first in people:
            assert all(
                look_distance(first.look, other.look) >= 4 for other in everybody if other is not first
            )


def test_retention_holds_every_split() -> None:
    asked = retention_questions("test", per_split=4, tiers=("base_test",))
    assert Counter(item.qa.kind for item in asked) == dict.fromkeys(RETENTION_SPLITS, 4)


def test_lessons_never_use_test_wordings_and_have_equal_size() -> None:
    plan = Plan(
        views=2, strangers=4, lookalikes=1, replay_scenes=3, replay_people=3, replay_text=10, unknown_text=5
    )
    people = new_people(0, 3)
    lesson = default_lesson(people, 0, plan)
    naive = naive_lesson(people, 0, plan, size=len(lesson))
    assert len(naive) == len(lesson)
    held_out = {words_key(text) for kind in WORDINGS for tier in TIERS[1:] for text in wordings(kind, tier)}
    fixed = {text for text in held_out if "{" not in text}
    assert not fixed & {item.qa.text for item in lesson}
    patterns = [re.compile(re.sub(r"\\\{.*?\\\}", ".+", re.escape(text)) + "$") for text in held_out - fixed]
    trained = {text for kind in WORDINGS for text in wordings(kind, "train")}
    train_patterns = [re.compile(re.sub(r"\\\{.*?\\\}", ".+", re.escape(text)) + "$") for text in trained]
    for item in lesson:
        if any(pattern.match(item.qa.text) for pattern in patterns):
            assert any(pattern.match(item.qa.text) for pattern in train_patterns), item.qa.text


def words_key(text: str) -> str:
    """A wording as it is."""
    return text


@pytest.mark.parametrize("kind", LESSON_ONLY)
def test_wordings_of_lessons_only_are_in_no_tier(kind: str) -> None:
    assert not set(LESSON_ONLY[kind]) & set(WORDINGS[kind])
    assert set(wordings(kind, "lesson")) == {*wordings(kind, "train"), *LESSON_ONLY[kind]}
