"""JSON as the standard has it: no NaN, no key twice, no number that takes minutes to read."""

import json

MOST_DIGITS = 100


class DuplicateKeyError(ValueError):
    """A JSON object that has one key twice."""


def whole_number(digits: str) -> int:
    """A number that could be an id; reading a long one takes time that grows with its square."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of more than {MOST_DIGITS} digits; write a long id as a text")
    return int(digits)


def refuse_constant(name: str) -> object:
    """NaN and Infinity, which Python reads but JSON does not know."""
    raise ValueError(f"{name} is not JSON; write a number, a string or null")


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object, each key once."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DuplicateKeyError(f"the key {twice!r} stands twice in one object; remove one")
    return result


DECODER = json.JSONDecoder(
    parse_constant=refuse_constant, parse_int=whole_number, object_pairs_hook=unique_keys
)
"""Decodes a text, or one value within it (`raw_decode`). `ValueError` with what is wrong."""
