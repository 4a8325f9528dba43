"""The terminal: the one place where text is given to rich, which takes none of it for markup."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lcm_distill.core.printable_text import printable

UNLIMITED = 1_000_000
"""Columns that no table has."""


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


def terminal_width() -> int | None:
    """Columns of standard output; None where it is no terminal."""
    return Terminal().width if sys.stdout.isatty() else None


def print_table(table: Table) -> None:
    """Print a table on standard output; where that is no terminal, as wide as it is, so that nothing is wrapped."""
    terminal, title, caption = Terminal(), table.title, table.caption
    table.title = table.caption = None  # which rich wraps at the table's width
    if not sys.stdout.isatty():
        terminal.width = Measurement.get(terminal, terminal.options.update_width(UNLIMITED), table).maximum
    for part, style in ((title, "italic"), (table, None), (caption, "dim italic")):
        if part:
            terminal.print(part, style=style, soft_wrap=part is not table)


def naming(*parts: str | Path) -> Text:
    """A sentence whose paths are bold."""
    return Text.assemble(*(part if isinstance(part, str) else (printable(str(part)), "bold") for part in parts))
