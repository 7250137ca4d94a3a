"""Short answers as the VQA challenge server (EvalAI) compares them, and scores against several people's
answers.

VQA: Antol et al. 2015; TextVQA: Singh et al. 2019; ANLS: Biten et al. 2019 (ST-VQA).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

ARTICLES = {"a", "an", "the"}
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(value) for value, word in enumerate(NUMBER_WORDS)} | {"none": "0"}

PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
PERIOD = re.compile(r"\.(?!\d)")
"""A period that no digit follows. One behind a digit goes too (`3.` is `3`), as on the server."""

WITH_APOSTROPHE = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
"""


def without_one_apostrophe(word: str) -> list[str]:
    """The misspellings of a contraction that the server mends: each lacks one of its apostrophes."""
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


CONTRACTIONS = {short: word for word in WITH_APOSTROPHE.split() for short in without_one_apostrophe(word)} | {
    "somebody'd": "somebodyd"  # the other way round on the server
}

THRESHOLD = 0.5
"""Below this similarity ANLS is 0: another word, not a misread one."""


def normalise_answer(answer: str) -> str:
    """Lower case; no punctuation, articles or line breaks; number words as digits; contractions mended."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    return mend_words(strip_punctuation(text))


def strip_punctuation(text: str) -> str:
    """A mark that stands at a blank anywhere vanishes everywhere; other marks become a blank."""
    stripped = text
    for mark in PUNCTUATION:
        at_blank = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if at_blank else " ")
    return PERIOD.sub("", stripped)


def mend_words(text: str) -> str:
    """Digits for number words, no articles, apostrophes where they belong."""
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def answer_scores(answers: Sequence[str]) -> dict[str, float]:
    """Normalised answer -> score against n people's answers (n >= 2; the benchmarks have 10).

    The mean over people of min(1, matches among the others / 3). `ValueError` for fewer than two answers.
    """
    people = len(answers)
    if people < 2:
        raise ValueError(f"found {people} answers; at least 2 were wanted, each is left out in turn")
    counts = Counter(normalise_answer(answer) for answer in answers)
    scores = {}
    for answer, count in counts.items():
        left_out = [count - 1] * count + [count] * (people - count)
        scores[answer] = sum(min(1.0, matches / 3) for matches in left_out) / people
    return scores


def soft_accuracy(answer: str, people: Sequence[str]) -> float:
    """How right an answer is by what people said: 0 to 1."""
    return answer_scores(people).get(normalise_answer(answer), 0.0)


def matches_any(answer: str, truths: Iterable[str]) -> bool:
    """Whether an answer is one of the true ones, after normalisation (ST-VQA's accuracy)."""
    return normalise_answer(answer) in {normalise_answer(truth) for truth in truths}


def edit_distance(first: str, second: str) -> int:
    """Levenshtein: the least number of letters to insert, delete or replace."""
    previous = list(range(len(second) + 1))
    for row, letter in enumerate(first, start=1):
        current = [row]
        for column, other in enumerate(second, start=1):
            replaced = previous[column - 1] + (letter != other)
            current.append(min(previous[column] + 1, current[-1] + 1, replaced))
        previous = current
    return previous[-1]


def similarity(answer: str, truth: str) -> float:
    """1 - edit distance / longer length, without case; 0 below `THRESHOLD`, 1 for two empty texts."""
    first, second = answer.lower().strip(), truth.lower().strip()
    longer = max(len(first), len(second))
    value = 1.0 - edit_distance(first, second) / longer if longer else 1.0
    return value if value >= THRESHOLD else 0.0


def anls(answer: str, truths: Iterable[str]) -> float:
    """Average normalised Levenshtein similarity of one answer: that to the nearest true one."""
    return max(similarity(answer, truth) for truth in truths)
