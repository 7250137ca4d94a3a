"""The option that an answer to a multiple-choice question chooses, read out of free text, English or Chinese.

A lone letter (`B`, `(B)`, `B. red`) and a sentence that names one (`The answer is B`, `答案是B`) come first,
then the text of an option and letters within the answer. Readings that disagree are none.
"""

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

LONE = re.compile(r"[\s(\[（【*\"']*([A-Za-z])[\s)\].:：。．、）】*\"']*")
LEADING = re.compile(r"[\s(\[（【*\"']*([A-Z])(?:[)\]:：．、）】*]|\.(?!\w)|\s*\n)")
NAMED = re.compile(
    r"(?:\b(?:answers?|options?|choices?)(?:\s+(?:is|are|would be|should be))?|\b(?:choose|chose|select|pick)"
    r"|答案(?:应该|应)?(?:是|为|选)?|选项|选择|选)\s*[:：]?\s*(?:option\s+)?[(\[（【*\"']*([A-Z])(?![A-Za-z0-9'])",
    re.IGNORECASE,
)
WORD = re.compile(r"(?<![A-Za-z0-9'’-])([A-Z])(?![A-Za-z0-9'’-])")
NO_LETTER = re.compile(r"[AI]\s+(?!(?:and|or|nor)\b)[a-z]")
"""An article or a pronoun before a word, not the letter of an option."""
ENDS = " \t\n.,;:!?\"'()[]*。，；：！？“”‘’（）【】"


def lettered_options(options: Sequence[str]) -> dict[str, str]:
    """Letter -> option, from A on."""
    return dict(zip(ascii_uppercase, options, strict=False))


def chosen_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter that an answer chooses among `options` (letter -> text); None when it cannot be told."""
    lone = LONE.fullmatch(answer)
    if lone is not None:
        letter = lone[1].upper()
        return letter if letter in options else None
    leading = LEADING.match(answer)
    if leading is not None and leading[1] in options:
        return leading[1]
    named = {letter.upper() for letter in NAMED.findall(answer) if letter.isupper()} & options.keys()
    if named:
        return only(named)
    exact = {letter for letter, text in options.items() if plain(text) and plain(text) == plain(answer)}
    return only(exact or options_said(answer, options) | letters_said(answer, options))


def only(found: set[str]) -> str | None:
    """The one that was found; None of several or none."""
    return next(iter(found)) if len(found) == 1 else None


def plain(text: str) -> str:
    """A text without case, blanks more than one, and marks around it."""
    return " ".join(text.casefold().split()).strip(ENDS)


def options_said(answer: str, options: Mapping[str, str]) -> set[str]:
    """The letters of the options whose text stands in the answer; `red` is not said by `dark red`, if that is
    an option too.
    """
    rest, found = plain(answer), set()
    for letter, text in sorted(options.items(), key=lambda option: -len(plain(option[1]))):
        wanted = re.compile(rf"(?<![a-z0-9]){re.escape(plain(text))}(?![a-z0-9])")
        if plain(text) and wanted.search(rest):
            found.add(letter)
            rest = wanted.sub(" ", rest)
    return found


def letters_said(answer: str, options: Mapping[str, str]) -> set[str]:
    """The letters of options that stand alone in the answer."""
    places = [found for found in WORD.finditer(answer) if not NO_LETTER.match(answer, found.start())]
    return {found[1] for found in places} & options.keys()
