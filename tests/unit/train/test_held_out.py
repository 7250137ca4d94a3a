"""Samples that are held out: whole pictures, a pure function of the seed, and never nothing."""

import pytest

from llava.errors import UsageError
from llava.train.held_out import picture_units, split_samples
from llava.train.sample_index import Sample, SampleIndex

TURNS = (("human", "What?"), ("gpt", "This."))


def index_of(*images: tuple[str, ...]) -> SampleIndex:
    """A sample for each entry, with these pictures."""
    return SampleIndex.of([Sample(str(row), row, one, TURNS) for row, one in enumerate(images)])


MANY = index_of(*[(f"{number % 40}.png",) for number in range(200)], *[()] * 40)


def test_pictures_are_kept_out_whole() -> None:
    split = split_samples(MANY, 0.1, seed=3)
    out, kept = set(split.held_out.tolist()), set(split.train.tolist())
    assert out | kept == set(range(240))
    assert not out & kept
    pictures = {row % 40 for row in out if row < 200}
    assert len(pictures) == 4
    assert {row for row in range(200) if row % 40 in pictures} == {row for row in out if row < 200}
    assert len([row for row in out if row >= 200]) == 4


def test_it_follows_from_the_seed() -> None:
    first, again, other = (split_samples(MANY, 0.1, seed=seed).held_out.tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_rows_that_share_a_picture_stay_together() -> None:
    index = index_of(("a",), ("a", "b"), ("b", "c"), ("c",), ("d",), ())
    units = picture_units(index)
    assert len(set(units[:4])) == 1
    assert units[4] not in (units[0], -1)
    assert units[5] == -1
    for seed in range(8):
        out = split_samples(index, 0.5, seed=seed).held_out.tolist()
        assert set(out) in ({0, 1, 2, 3}, {4})


def test_no_share_keeps_everything() -> None:
    assert len(split_samples(MANY, 0.0, seed=0).held_out) == 0


def test_one_picture_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="1 separate pictures, 3 are left to train on and 0 to evaluate"):
        split_samples(index_of(("a",), ("a",), ("a",)), 0.5, seed=0)
