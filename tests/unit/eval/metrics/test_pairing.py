"""Ids of questions and answers: compared as texts, told with their number and the first few."""

import random

from llava.eval.metrics.pairing import MISSING, Coverage, compare_ids, id_order, repeated_ids, tell


def test_numbers_and_texts_are_one_id() -> None:
    assert compare_ids([1, "2"], ["1", 2]) == Coverage((), (), ())
    assert compare_ids([1, 2, 3], [3, 4, "4"]) == Coverage(("1", "2"), ("4",), ("4",))
    assert repeated_ids([1, "1", 2]) == ("1",)


def test_every_id_is_answered_missing_or_foreign() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        asked, answered = (rng.choices(range(20), k=15) for _ in range(2))
        coverage = compare_ids(asked, answered)
        both = {str(name) for name in asked} & {str(name) for name in answered}
        assert both | set(coverage.missing) == {str(name) for name in asked}
        assert both | set(coverage.unknown) == {str(name) for name in answered}
        assert not both & (set(coverage.missing) | set(coverage.unknown))
        assert set(coverage.repeated) == {str(name) for name in answered if answered.count(name) > 1}


def test_counts_and_the_first_few_are_told() -> None:
    assert tell(["a"], MISSING) == "1 question has no answer, first a"
    assert tell(range(9), MISSING) == "9 questions have no answer, first 0, 1, 2, 3, 4"


def test_numbers_stand_in_their_order_before_texts() -> None:
    assert sorted(["10", "b", 9, "a", "1"], key=id_order) == ["1", 9, "10", "a", "b"]
