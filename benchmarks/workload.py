"""What is trained on: pictures with several questions each, lengths like those of LLaVA's data, random ids.

A sample is a system prompt (35 tokens), a picture, a question (45) and an answer (15, or 150 with
`--answer-tokens 150`); lengths of questions and answers vary by half of these around them.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX

if TYPE_CHECKING:
    from benchmarks.shapes import Shape
    from llava.train.packing import Example

PROMPT_TOKENS = 35
FIRST_FREE_ID = 3
"""Ids below are <unk>, <s> and </s>; the last id of the vocabulary stands for pictures in transformers."""


@dataclass(frozen=True)
class Workload:
    """`pictures` per step with `questions` each; every step has other pictures and other words."""

    pictures: int
    questions: int
    question_tokens: int
    answer_tokens: int
    num_patches: int
    vocabulary: int
    seed: int = 0

    @property
    def samples(self) -> int:
        """Samples of one step."""
        return self.pictures * self.questions

    def step(self, number: int) -> list["Example"]:
        """The samples of a step, those of a picture together."""
        from llava.processing import Encoded
        from llava.train.packing import Example

        rng = random.Random(f"{self.seed}/{number}")
        examples = []
        for picture in range(self.pictures):
            prefix = [1, *self.words(rng, PROMPT_TOKENS - 1), *[IMAGE_TOKEN_INDEX] * self.num_patches]
            for question in range(self.questions):
                asked = self.words(rng, about(rng, self.question_tokens))
                answer = self.words(rng, about(rng, self.answer_tokens))
                labels = [IGNORE_INDEX] * (len(prefix) + len(asked)) + answer
                encoded = Encoded([*prefix, *asked, *answer], labels, len(prefix), 1)
                name = f"{number}/{picture}"
                examples.append(Example(f"{name}/{question}", encoded, (name,)))
        return examples

    def words(self, rng: random.Random, count: int) -> list[int]:
        """Random ids of ordinary tokens."""
        return [rng.randrange(FIRST_FREE_ID, self.vocabulary - 1) for _ in range(count)]


def workload_of(shape: "Shape", task: Mapping[str, Any]) -> Workload:
    """The data of a task, see `benchmarks.training_run.Task`."""
    names = ("pictures", "questions", "question_tokens", "answer_tokens")
    sizes = {name: task[name] for name in names}
    return Workload(**sizes, num_patches=shape.num_patches, vocabulary=shape.vocabulary)


def about(rng: random.Random, mean: int) -> int:
    """A length between half and three halves of the mean."""
    return rng.randint(-(-mean // 2), mean + mean // 2)


def merged(examples: list["Example"]) -> list["Example"]:
    """All questions of a picture as turns of one conversation, in order: other samples, for speed only."""
    from llava.processing import Encoded
    from llava.train.packing import Example

    by_picture: dict[tuple[str, ...], list[Example]] = {}
    for example in examples:
        by_picture.setdefault(example.images, []).append(example)
    joined = []
    for images, group in by_picture.items():
        length = group[0].encoded.prefix_length
        ids, labels = list(group[0].encoded.input_ids), list(group[0].encoded.labels)
        for example in group[1:]:
            ids += example.encoded.input_ids[length:]
            labels += example.encoded.labels[length:]
        joined.append(Example(images[0], Encoded(ids, labels, length, 1), images))
    return joined


@dataclass(frozen=True)
class Counts:
    """Of one step: samples, targets, pictures, tokens with every picture's prefix counted once, and pairs of
    a token with one that it sees, counted the same way.
    """

    samples: int
    targets: int
    pictures: int
    unique_tokens: int
    unique_pairs: float


def count(examples: list["Example"]) -> Counts:
    """What one step must compute at least."""
    prefixes = {example.images: example.encoded.prefix_length for example in examples}
    branches = [
        (example.encoded.prefix_length, len(example.encoded.input_ids) - example.encoded.prefix_length)
        for example in examples
    ]
    pairs = sum(length * (length + 1) / 2 for length in prefixes.values())
    pairs += sum(own * prefix + own * (own + 1) / 2 for prefix, own in branches)
    return Counts(
        samples=len(examples),
        targets=sum(label != IGNORE_INDEX for example in examples for label in example.encoded.labels),
        pictures=len(prefixes),
        unique_tokens=sum(prefixes.values()) + sum(own for _, own in branches),
        unique_pairs=pairs,
    )
