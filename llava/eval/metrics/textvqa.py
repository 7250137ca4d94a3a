"""TextVQA: which question an answer belongs to, and the soft score over all of them.

LLaVA's answer files name the picture as question_id; the question itself is found in the prompt.
"""

import re
from collections.abc import Iterable
from math import fsum

OCR_QUESTION = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)
OCR_HEAD = "Reference OCR token:"


def questions_of_prompt(prompt: str) -> list[str]:
    """What may be the question of a prompt, most likely first, in lower case.

    Prompts have three shapes: `OCR tokens: ... Question: Q Short answer:`; Q, how to answer, and a line of
    OCR tokens before or behind Q; Q and how to answer. In a prompt of another shape any line may be it.
    """
    text = prompt.lower()
    lines = text.split("\n")
    if prompt.startswith("OCR tokens: "):
        asked = OCR_QUESTION.search(prompt)
        return [asked.group(1).lower()] if asked else []
    if len(lines) == 3 and f"{OCR_HEAD} " in prompt:
        return [lines[1] if prompt.startswith(OCR_HEAD) else lines[0]]
    if len(lines) == 2:
        return [lines[0]]
    return [text, *lines]


def find_question(prompt: str, asked: Iterable[str]) -> str | None:
    """The question of a picture (`asked`: all its questions, in lower case) that a prompt puts, or None."""
    known = set(asked)
    return next((text for text in questions_of_prompt(prompt) if text in known), None)


def report(name: str, scores: Iterable[float]) -> str:
    """What the original prints for an answer file; scores are 0 to 1."""
    values = list(scores)
    return f"{name}\nSamples: {len(values)}\nAccuracy: {100.0 * fsum(values) / len(values):.2f}%\n\n"
