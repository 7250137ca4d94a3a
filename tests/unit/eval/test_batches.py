"""Plans of batches: every question once, pictures prefilled once, limits held, little padding."""

import random

import pytest

from llava.constants import IMAGE_TOKEN_INDEX
from llava.eval.batches import Asked, Limit, align_questions, common_words, pad_prefixes, plan_shares
from llava.processing import Encoded

NEW = 4


def asked(index: int, picture: str | None, *, patches: int = 4, rest: int = 3) -> Asked:
    """A question of `rest` tokens behind two tokens and a picture."""
    prefix = [1, 4, *[IMAGE_TOKEN_INDEX] * patches] if picture else []
    return Asked(index, picture, Encoded(prefix + list(range(5, 5 + rest)), [], len(prefix), bool(picture)))


def mixed(seed: int) -> list[Asked]:
    """Questions about pictures of two sizes and about none, in mixed order."""
    rng = random.Random(seed)
    sizes = {"a": 4, "b": 4, "c": 30, "d": 31, None: 0}
    pictures = rng.choices(list(sizes), k=40)
    return [
        asked(index, picture, patches=sizes[picture], rest=rng.randint(1, 12))
        for index, picture in enumerate(pictures)
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [Limit(1), Limit(4), Limit(100), Limit(8, 200), Limit(100, 1)])
def test_a_plan_asks_all_once_within_its_limit(limit: Limit, seed: int) -> None:
    questions = mixed(seed)
    shares = plan_shares(questions, limit, max_new_tokens=NEW)
    batches = [batch for share in shares for batch in share.batches]
    assert sorted(one.index for batch in batches for one in batch) == list(range(len(questions)))
    for batch in batches:
        row = 2 * max(one.encoded.prefix_length for one in batch) + max(len(one.rest) for one in batch) + NEW
        assert len(batch) <= limit.rows
        assert limit.tokens is None or len(batch) == 1 or len(batch) * row <= limit.tokens


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_is_in_one_share_and_without_padding_beside_others(seed: int) -> None:
    questions = mixed(seed)
    shares = plan_shares(questions, Limit(6), max_new_tokens=NEW)
    firsts = [first.picture for share in shares for first in share.firsts]
    assert sorted(map(str, firsts)) == sorted({str(one.picture) for one in questions if one.picture})
    together = [{first.picture for first in share.firsts} for share in shares]
    assert {"c", "d"} in together, "30 and 31 patches are alike enough"
    assert {"a", "b"} in together
    for share in shares:
        pictures = {first.picture for first in share.firsts}
        assert {one.picture for batch in share.batches for one in batch} == (pictures or {None})


def test_questions_of_a_batch_are_of_like_length() -> None:
    questions = [asked(index, "a", rest=rest) for index, rest in enumerate([9, 1, 8, 2, 7, 3])]
    (share,) = plan_shares(questions, Limit(3), max_new_tokens=NEW)
    assert [[len(one.rest) for one in batch] for batch in share.batches] == [[9, 8, 7], [3, 2, 1]]


def test_one_long_question_stands_alone_where_tokens_are_counted() -> None:
    questions = [asked(index, "a", rest=1) for index in range(4)] + [asked(4, "a", rest=60)]
    (share,) = plan_shares(questions, Limit(10, tokens=80), max_new_tokens=NEW)
    assert [[one.index for one in batch] for batch in share.batches] == [[4], [0, 1, 2, 3]]


def test_padding_stands_behind_prefixes_and_before_questions() -> None:
    batch = [asked(0, "a", patches=1, rest=1), asked(1, "b", patches=2, rest=3)]
    ids, mask = pad_prefixes(batch, padding=0)
    picture = IMAGE_TOKEN_INDEX
    assert ids.tolist() == [[1, 4, picture, 0], [1, 4, picture, picture]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    ids, mask = align_questions(batch, prefix_width=4, padding=0)
    assert ids.tolist() == [[0, 0, 5], [5, 6, 7]]
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1]]


def test_common_words_end_at_a_difference_or_a_picture() -> None:
    picture = IMAGE_TOKEN_INDEX
    assert common_words([[1, 2, picture, 3], [1, 2, picture, picture, 3]]) == 2
    assert common_words([[1, 2, picture], [1, 3, picture]]) == 1
    assert common_words([[1, 2], [1, 2, 3]]) == 2
    assert common_words([[picture], [picture]]) == 0


def test_half_of_a_limit_is_never_nothing() -> None:
    assert Limit(5, 100).halved() == Limit(2, 50)
    assert Limit(1).halved() == Limit(1)
