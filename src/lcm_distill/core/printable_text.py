"""Text that others wrote, such as captions and file names, made safe to show."""

import re

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls of C0 and C1 but for tabs and line feeds, marks that change the direction of writing, ends of lines that
only Unicode knows, and lone surrogates."""

LONGEST_VALUE = 200
"""Characters of a wrong value that a message shows."""


def printable(text: str) -> str:
    r"""The text with everything that a terminal obeys rather than shows written as an escape, such as `\x1b`.

    Tabs and line feeds stay. The result can be encoded in UTF-8.
    """
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """`printable`, with any run of white space as one space."""
    return " ".join(printable(text).split())


def start(text: str) -> str:
    """A text; of a long one the beginning."""
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
