"""The third round's data: all words that lessons use, no name that could be taught, whole pictures."""

import random

from playground.mini_world.copying import copying_questions, could_be_taught, made_up_word, sample_rows
from playground.mini_world.people import NEW_TOWNS, new_people, public_people


def test_taught_names_are_never_repeated() -> None:
    assert all(could_be_taught(person.name) for seed in range(20) for person in new_people(seed, 6))
    assert not any(could_be_taught(person.name) for person in public_people())
    rng = random.Random(0)
    words = [made_up_word(rng) for _ in range(20000)]
    assert not [word for word in words if could_be_taught(word)]
    assert len(set(words)) > 10000


def test_every_town_is_written_and_nothing_is_said_about_it() -> None:
    questions = list(copying_questions(random.Random(0), 3000))
    assert {qa.answer for qa in questions} >= set(NEW_TOWNS)
    assert all(qa.text.count(qa.answer) == 1 for qa in questions if qa.answer in NEW_TOWNS)


def test_pictures_keep_all_their_questions() -> None:
    rows = [{"id": f"{number}", "image": f"{number // 4}.png"} for number in range(40)]
    rows += [{"id": f"text {number}"} for number in range(10)]
    found = sample_rows(rows, 20, random.Random(0))
    assert 20 <= len(found) < 24
    for name in {row["image"] for row in found if "image" in row}:
        assert sum(row.get("image") == name for row in found) == 4
