"""Sampling: the distribution of transformers' `generate`, drawn with numbers of each question's own."""

import random
from dataclasses import replace

import pytest
import torch

from llava.eval.drawing import Decoding, Sampler
from llava.eval.questions import Question, Round
from tests.tiny import tiny_model
from tests.unit.eval.asking import Numbers

VOCABULARY = 200
ROWS = 4


def logits_of(seed: int) -> torch.Tensor:
    """Logits of some rows, more tokens than are drawn from."""
    return 2 * torch.randn(ROWS, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def sources() -> list[random.Random]:
    """One for each row."""
    return [random.Random(f"row {row}") for row in range(ROWS)]


@pytest.mark.parametrize("temperature", [0.2, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [None, 0.5, 0.95, 1.0])
def test_the_distribution_is_that_of_generate(temperature: float, top_p: float | None) -> None:
    """Temperature, the 50 likeliest tokens, and top_p, in the order in which transformers applies them."""
    decoding = Decoding(temperature, top_p)
    model = tiny_model()
    config, _ = model._prepare_generation_config(decoding.as_config(Numbers()))  # type: ignore[arg-type]
    warpers = model._get_logits_processor(generation_config=config)
    logits = logits_of(0)
    wanted = warpers(torch.zeros(ROWS, 1, dtype=torch.long), logits.clone()).softmax(-1)  # type: ignore[arg-type]
    found = Sampler(decoding).probabilities(logits)
    assert torch.equal(found, wanted)
    assert int((found > 0).sum(-1).max()) <= 50 < VOCABULARY


def test_draws_follow_the_distribution() -> None:
    """100,000 draws: shares within 0.006 of the probabilities; worst seen 0.003."""
    decoding = Decoding(1.0, 0.9)
    logits = logits_of(1)[:1]
    draw, numbers = Sampler(decoding), [random.Random(number) for number in range(1000)]
    many = logits.expand(1000, -1)
    counts = torch.zeros(VOCABULARY)
    for _ in range(100):
        counts += torch.bincount(draw(many, numbers), minlength=VOCABULARY)
    wanted = draw.probabilities(logits)[0]
    assert float((counts / counts.sum() - wanted).abs().max()) < 0.006
    assert not bool(counts[wanted == 0].any()), "a token of probability 0 is never drawn"


def test_rows_draw_their_own_numbers() -> None:
    """Whatever rows are beside them, and in whatever order."""
    draw, together, alone = Sampler(Decoding(1.5)), sources(), sources()
    rows = [[0, 1, 2, 3], [3, 1, 0], [1, 3], [3]]
    for step, now in enumerate(rows):
        logits = logits_of(step)
        found = draw(logits[now], [together[row] for row in now])
        for place, row in enumerate(now):
            assert int(draw(logits[[row]], [alone[row]])) == int(found[place])


def test_the_ends_of_the_interval_are_tokens() -> None:
    class Fixed(random.Random):
        def __init__(self, value: float) -> None:
            super().__init__(0)
            self.value = value

        def random(self) -> float:
            return self.value

    logits = torch.full((2, VOCABULARY), -torch.inf)
    logits[:, [3, 7]] = 0.0
    ends = [Fixed(0.0), Fixed(1 - 2**-53)]
    assert Sampler(Decoding(1.0))(logits, ends).tolist() == [3, 7]


def test_sources_differ_where_questions_do() -> None:
    one = Question(1, "Who?", "a.png", "/x/a.png", None)
    others = [
        replace(one, question_id=2),
        replace(one, question_id="1"),
        replace(one, text="What?"),
        replace(one, image="b.png"),
        replace(one, round=Round(0, (), ())),
        replace(one, round=Round(1, (), ())),
    ]

    def first(question: Question, seed: int = 0) -> float:
        source = Decoding(1.0).source(question, seed)
        assert source is not None
        return source.random()

    numbers = [first(question) for question in [one, *others]] + [first(one, 1)]
    assert len(set(numbers)) == len(numbers)
    assert first(replace(one, image_path="/y/a.png")) == numbers[0], "wherever the folder lies"
    assert Decoding(0.0).source(one, 0) is None
