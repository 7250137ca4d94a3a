"""MM-Vet (Yu et al. 2024): a judge's mark from 0 to 1 per answer, per capability and combination."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MARK = re.compile(
    r"[\s|*`\"]*(?:(?:correctness|score|mark)(?:\s+is)?\s*[:=|]?[\s*`\"]*)?(\d+(?:\.\d+)?|\.\d+)"
    r"(?!\.?\d)(?!\s*(?:/|%|out of))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Item:
    """A question: the true answer, its parts parted by <AND> and <OR>, and the capabilities that it takes."""

    question_id: str
    image: str | None
    question: str
    answer: str
    capabilities: tuple[str, ...]

    @property
    def combination(self) -> str:
        """All its capabilities, in alphabetical order."""
        return "_".join(sorted(self.capabilities))


def parse_mark(judgement: str) -> float | None:
    """The mark that a judgement begins with, else its last line; None when that is no number from 0 to 1."""
    lines = judgement.strip().splitlines()
    for text in (judgement, *lines[-1:]):
        found = MARK.match(text)
        if found is not None:
            mark = float(found[1])
            return mark if 0 <= mark <= 1 else None
    return None


def kinds_of(items: Sequence[Item]) -> Mapping[str, list[Item]]:
    """`capability: ocr` and `combination: math_ocr` -> their items, in alphabetical order."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        for name in item.capabilities:
            groups.setdefault(f"capability: {name}", []).append(item)
        groups.setdefault(f"combination: {item.combination}", []).append(item)
    return {name: groups[name] for name in sorted(groups)}
