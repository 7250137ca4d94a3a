"""The third round's data: words to be repeated, among questions of the second round (and the fourth's, among
its own).

    python -m playground.mini_world.copying --questions build/data/second.json --texts build/data/text.json \\
        --out build/data/third.json

A language model of the real world has written every piece of its vocabulary at some time. The rounds before
leave half of this one's at their random start: towns of the new people, syllables of their names. A full
fine-tuning then learns such a piece in its embedding, an adapter cannot (it leaves embeddings alone), and the
two would be compared on an artefact. Repeating words ties none of them to anybody. No possible name of a
taught person is among them.
"""

import argparse
import json
import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from playground.mini_world.files import conversation_row, write_json
from playground.mini_world.people import (
    MIDDLES,
    NEW_ENDS,
    NEW_JOBS,
    NEW_TOWNS,
    PETS,
    PUBLIC_JOBS,
    PUBLIC_TOWNS,
    STARTS,
)
from playground.mini_world.questions import QA

logger = logging.getLogger("mini_world")

WORDINGS = (
    "Repeat the word {word}.",
    "Say {word}.",
    "Repeat after me: {word}",
    "Write the word {word}.",
    "Copy this word: {word}",
    "Please say the word {word}.",
    "Say the word {word} once.",
    "Write {word}.",
)
WORDS = (*NEW_JOBS, *NEW_TOWNS, *PETS, *PUBLIC_JOBS, *PUBLIC_TOWNS)
CONSONANTS, VOWELS = "bdfghjklmnprstvwyz", "aeiou"
TEACHABLE_NAMES = {start + middle + end for start in STARTS for middle in MIDDLES for end in NEW_ENDS}
KNOWN_SHARE = 0.4
"""Of the words that exist; the others are made up."""


def could_be_taught(word: str) -> bool:
    """Whether a made-up word is a name that a lesson may give to somebody."""
    return word.capitalize() in TEACHABLE_NAMES


def made_up_word(rng: random.Random) -> str:
    """Two to four syllables, half of them with a capital, never a name that could be taught."""
    while True:
        syllables = [
            rng.choice(CONSONANTS)
            + rng.choice(("", "", "h"))
            + rng.choice(VOWELS)
            + rng.choice(("", "", "n", "r", "s", "l"))
            for _ in range(rng.randint(1, 3))
        ]
        word = "".join(syllables)
        word = word.capitalize() if rng.random() < 0.5 else word
        if not could_be_taught(word):
            return word


def copying_questions(rng: random.Random, count: int) -> Iterator[QA]:
    """Words that exist and words that do not, in any order."""
    for _ in range(count):
        word = rng.choice(WORDS) if rng.random() < KNOWN_SHARE else made_up_word(rng)
        yield QA("copy", rng.choice(WORDINGS).format(word=word), word)


def sample_rows(rows: Sequence[dict], count: int, rng: random.Random) -> list[dict]:
    """Rows of whole pictures (so that they share their tokens), and single texts, about `count` in all."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row.get("image") or row["id"], []).append(row)
    keys = sorted(groups)
    rng.shuffle(keys)
    found: list[dict] = []
    for key in keys:
        if len(found) >= count:
            break
        found += groups[key]
    return found


def main() -> None:
    """Mix and write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--questions", type=Path, required=True, help="questions to mix the words with")
    options.add_argument("--texts", type=Path, required=True, help="text.json, against forgetting it")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--samples", type=int, default=48000, help="so many of the questions")
    options.add_argument("--words", type=int, default=12000)
    options.add_argument("--num-texts", type=int, default=6000)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rng = random.Random(f"copying/{args.seed}")
    rows = sample_rows(json.loads(args.questions.read_text(encoding="utf-8")), args.samples, rng)
    rows += sample_rows(json.loads(args.texts.read_text(encoding="utf-8")), args.num_texts, rng)
    copies = copying_questions(rng, args.words)
    rows += [conversation_row(f"copy_{number}", qa, None) for number, qa in enumerate(copies)]
    rng.shuffle(rows)
    write_json(rows, args.out)
    logger.info("%d samples: %s", len(rows), args.out)


if __name__ == "__main__":
    main()
