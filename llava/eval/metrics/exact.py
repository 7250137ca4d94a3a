"""When an answer is right: equal to the truth after normalisation. An unparsable one is wrong, never
dropped.
"""

import re
import unicodedata
from collections.abc import Iterable

EDGES = " \t\n.,;:!?\"'`*“”‘’«»()[]"


def normalise(text: str) -> str:
    """Case, width of characters, runs of blanks, and punctuation or quotes at both ends do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(EDGES)


def yes_or_no(text: str) -> str | None:
    """`yes` or `no` when the answer starts with one of them and the other does not occur; else None."""
    words = re.findall(r"\w+", normalise(text))
    if not words or words[0] not in ("yes", "no") or {"yes", "no"} <= set(words):
        return None
    return words[0]


def is_yes_no(truth: str) -> bool:
    """Whether a question is one that wants yes or no, told by its true answer."""
    return normalise(truth) in ("yes", "no")


def matches(answer: str, truth: str) -> bool:
    """Whether the answer is right."""
    if is_yes_no(truth):
        return yes_or_no(answer) == normalise(truth)
    return normalise(answer) == normalise(truth)


def names_in(answer: str, names: Iterable[str]) -> list[str]:
    """The names that occur in an answer as whole words, in the order of `names`."""
    text = normalise(answer)
    return [name for name in names if re.search(rf"(?<!\w){re.escape(normalise(name))}(?!\w)", text)]
