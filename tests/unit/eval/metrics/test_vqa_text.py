"""The VQA server's normaliser and soft score, and the similarity of ST-VQA."""

import random

import pytest

from llava.errors import UsageError
from llava.eval.m4c_evaluator import (
    EvalAIAnswerProcessor,
    STVQAAccuracyEvaluator,
    STVQAANLSEvaluator,
    TextVQAAccuracyEvaluator,
)
from llava.eval.metrics.vqa_text import (
    anls,
    answer_scores,
    edit_distance,
    normalise_answer,
    similarity,
    soft_accuracy,
)

PIECES = ("The", " ", "cat", ",", ".", "3", "-", "'s", "dont", "two", "\n", "?", "/", "(", "é", "A", "!")


def slow_scores(answers: list[str]) -> dict[str, float]:
    """Leave each person out in turn, literally."""
    processed = [normalise_answer(answer) for answer in answers]
    scores = {}
    for answer in set(processed):
        values = []
        for person in range(len(processed)):
            others = processed[:person] + processed[person + 1 :]
            values.append(min(1.0, others.count(answer) / 3))
        scores[answer] = sum(values) / len(values)
    return scores


def texts(seed: int, count: int) -> list[str]:
    """Random texts of the pieces."""
    rng = random.Random(seed)
    return ["".join(rng.choices(PIECES, k=rng.randint(0, 8))) for _ in range(count)]


@pytest.mark.parametrize("people", [2, 3, 7, 10])
def test_soft_scores_leave_each_person_out(people: int) -> None:
    for seed in range(50):
        rng = random.Random(seed)
        answers = rng.choices(["red", "Red.", "blue", "two", "2", "a red"], k=people)
        assert answer_scores(answers) == pytest.approx(slow_scores(answers), abs=1e-12)
        assert soft_accuracy("purple", answers) == 0.0
        shuffled = rng.sample(answers, len(answers))
        assert answer_scores(shuffled) == answer_scores(answers)


def test_one_answer_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="found 1 answers; at least 2 were wanted"):
        answer_scores(["red"])


def test_a_normalised_answer_is_lower_case_without_marks() -> None:
    for text in texts(0, 2000):
        found = normalise_answer(text)
        assert found == found.lower().strip()
        assert not set(found) & set(';/[]"{}()=+\\_-><@`,?!\n\t')
        assert not {"a", "an", "the", "two"} & set(found.split())


def test_every_period_goes_however_many() -> None:
    assert normalise_answer("no" + "." * 100) == "no"
    assert normalise_answer("3.14") == "3.14"


def test_calls_do_not_change_later_calls() -> None:
    process = EvalAIAnswerProcessor()
    first = [process(text) for text in texts(1, 200)]
    assert [process(text) for text in texts(1, 200)] == first


def test_edit_distance_is_a_distance() -> None:
    assert (edit_distance("kitten", "sitting"), edit_distance("", "abc"), edit_distance("a", "a")) == (
        3,
        3,
        0,
    )
    words = ["", "a", "ab", "stop", "step", "pots"]
    for one in words:
        for two in words:
            assert edit_distance(one, two) == edit_distance(two, one)
            for three in words:
                assert edit_distance(one, three) <= edit_distance(one, two) + edit_distance(two, three)


def test_similarity_has_a_threshold_and_no_case() -> None:
    assert similarity(" STOP ", "stop") == 1.0
    assert similarity("stop", "step") == pytest.approx(0.75)
    assert similarity("abcd", "wxyd") == 0.0
    assert similarity("", "") == 1.0
    assert anls("step", ["go", "stop"]) == pytest.approx(0.75)


def test_evaluators_average_over_predictions() -> None:
    rows = [
        {"pred_answer": "The Stop", "gt_answers": ["stop", "halt"]},
        {"pred_answer": "go", "gt_answers": ["stop", "stop"]},
    ]
    assert STVQAAccuracyEvaluator().eval_pred_list(rows) == 0.5
    assert STVQAANLSEvaluator().eval_pred_list(rows) == pytest.approx(0.25)  # "the stop" is half a match
    assert STVQAANLSEvaluator().get_anls("step", "stop") == pytest.approx(0.75)
    ten = [{"pred_answer": "red", "gt_answers": ["red"] * 2 + ["blue"] * 8}]
    assert TextVQAAccuracyEvaluator().eval_pred_list(ten) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    with pytest.raises(UsageError, match="no predictions"):
        TextVQAAccuracyEvaluator().eval_pred_list([])
