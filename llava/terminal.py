"""Text for people to read: nothing that came from a file, a model or a server steers the terminal.

Answers, names and paths may hold escape sequences (colours, cursor moves, window titles, the clipboard),
carriage returns that overwrite a line, and bidirectional marks that turn text round. All of them are shown as
escapes, such as `\\x1b`.
"""

import logging
import sys
import unicodedata

KEPT = "\n\t"
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of characters that show nothing by themselves: controls, formats (bidirectional marks, zero
widths), half surrogates, and line ends that no terminal knows.
"""
MOST_MARKS = 8
"""Accents on one letter; more of them are painted over the lines above and below."""
JOINERS = "\u200c\u200d"
"""Formats that scripts and emoji need, and that move nothing."""


def visible(text: str) -> str:
    """The text with every character that shows nothing, and every accent too many, as its escape.

    Line feeds and tabs stay.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    shown, marks = [], 0
    for letter in text:
        marks = marks + 1 if unicodedata.combining(letter) else 0
        shown.append(ascii(letter)[1:-1] if marks > MOST_MARKS or is_hidden(letter) else letter)
    return "".join(shown)


def is_hidden(letter: str) -> bool:
    """Whether a character steers instead of showing."""
    return letter not in KEPT + JOINERS and unicodedata.category(letter) in HIDDEN


def say(text: str) -> None:
    """Write to stdout, visibly."""
    sys.stdout.write(printable(visible(text), sys.stdout.encoding))


def note(text: str) -> None:
    """Write to stderr, visibly."""
    sys.stderr.write(printable(visible(text), sys.stderr.encoding))


def say_answer(text: str) -> None:
    """Write an answer to stdout: visibly on a terminal, exactly into a file or pipe."""
    if sys.stdout.isatty():
        say(text)
    else:
        sys.stdout.write(text)


def printable(text: str, encoding: str | None) -> str:
    """The text with what an encoding does not know as escapes."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class VisibleRecord(logging.LogRecord):
    """A log record whose message is visible, whatever its handler."""

    def getMessage(self) -> str:
        return visible(super().getMessage())


def guard_logs() -> None:
    """From now on all that logs show is visible. For commands: the change holds for the whole process."""
    logging.setLogRecordFactory(VisibleRecord)
