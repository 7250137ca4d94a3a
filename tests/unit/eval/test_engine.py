"""The engine: batches and shared pictures change no answer, and each picture passes through the tower
once.
"""

import random

import pytest

from llava.constants import IMAGE_TOKEN_INDEX
from llava.eval.engine import AnswerEngine, Decoding, align_questions, plan_batches
from llava.eval.questions import Question
from llava.processing import Encoded, Picture
from tests.parity.golden import golden_tokenizer
from tests.tiny import NUM_PATCHES, VOCABULARY, picture, tiny_model


def questions_and_ids(seed: int) -> tuple[list[Question], dict[str, Encoded]]:
    """Questions about three pictures and none, of different lengths, in mixed order."""
    rng = random.Random(seed)
    questions, encoded = [], {}
    for number in range(12):
        image = rng.choice(["a", "b", "c", None])
        name = f"q{number}"
        prefix = [1, 4, *[IMAGE_TOKEN_INDEX] * NUM_PATCHES] if image else []
        rest = ([] if image else [1]) + [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(2, 9))]
        encoded[name] = Encoded([*prefix, *rest], [], len(prefix), 1 if image else 0)
        questions.append(Question(name, f"text {number}", image, image, None))
    return questions, encoded


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_batches_change_no_answer(seed: int) -> None:
    questions, encoded = questions_and_ids(seed)
    assert len({question.image_path for question in questions}) > 2, "pictures must be shared and mixed"
    loaded: list[str] = []

    def load(path: str) -> Picture:
        loaded.append(path)
        return Picture(picture(path), (8, 8))

    tokenizer = golden_tokenizer("nonlegacy")
    engine = AnswerEngine(
        tiny_model(seed).eval(),
        tokenizer,
        lambda question: encoded[question.question_id],
        load,
        Decoding(0.0, None, 1, 6),
    )
    single = dict(engine.answer(questions, batch_size=1))
    loaded.clear()
    together = dict(engine.answer(questions, batch_size=50))
    assert together == single
    assert len(set(single.values())) > 1, "the answers must differ"
    assert sorted(loaded) == sorted({q.image_path for q in questions if q.image_path}), "each picture once"


def test_a_batch_has_one_kind_of_prefix_and_keeps_pictures_together() -> None:
    questions, encoded = questions_and_ids(5)
    tokens = [encoded[question.question_id] for question in questions]
    batches = plan_batches(questions, tokens, batch_size=4)
    assert sorted(index for batch in batches for index in batch) == list(range(len(questions)))
    for batch in batches:
        assert len(batch) <= 4
        assert len({tokens[index].prefix_length for index in batch}) == 1


def test_padding_stands_between_prefix_and_question() -> None:
    encoded = [Encoded([1, 2, 7], [], 2, 1), Encoded([1, 2, 7, 8, 9], [], 2, 1)]
    ids, mask = align_questions(encoded, prefix_length=2, padding=0)
    assert ids.tolist() == [[1, 2, 0, 0, 7], [1, 2, 7, 8, 9]]
    assert mask.tolist() == [[1, 1, 0, 0, 1], [1, 1, 1, 1, 1]]
