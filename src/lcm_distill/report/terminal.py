"""The terminal: the one place where text is given to rich, which takes none of it for markup."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lcm_distill.core.text import printable

PIPED_WIDTH = 140
"""Columns of a table that is written to a file or a pipe."""


class Terminal(Console):
    """A console that shows strings literally, in tables as well: no markup, no emoji names, controls as escapes.

    Style comes from `Text` alone, which code makes and never what it shows.
    """

    def __init__(self, stderr: bool = False, width: int | None = None, **options: Any) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a string, `printable`."""
        return super().render_str(printable(text), **options)


screen = Terminal(stderr=True)
"""Standard error: progress and notices."""


def wide() -> Terminal:
    """Standard output, for tables of many columns."""
    return Terminal(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def naming(*parts: str | Path) -> Text:
    """A sentence whose paths are bold."""
    return Text.assemble(*(part if isinstance(part, str) else (printable(str(part)), "bold") for part in parts))
