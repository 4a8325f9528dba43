"""Tables on a terminal and in a pipe: nothing is cut."""

import sys
from io import StringIO

import pytest
from rich.table import Table

from lcm_distill.report.tables import plain_table
from lcm_distill.report.terminal import print_table
from tests.command_line import without_styles

LONG = "0123456789" * 30


def printed(monkeypatch, table: Table, columns: int | None) -> str:
    """What is printed into a pipe, or on a terminal of so many columns."""
    file = StringIO()
    file.isatty = lambda: columns is not None
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setenv("COLUMNS", str(columns or 80))
    monkeypatch.setenv("TERM", "xterm")
    print_table(table)
    return without_styles(file.getvalue())


@pytest.mark.parametrize("value", [LONG, "many words " * 40 + "end"])
def test_a_pipe_gets_each_row_on_one_line(monkeypatch, value):
    lines = printed(monkeypatch, plain_table([{"a": value, "b": 1}], "title " * 50), None).splitlines()
    assert lines[0] == ("title " * 50)
    assert [line for line in lines if value in line and "1 │" in line]
    assert len(lines) == 1 + 5


def test_a_terminal_folds_what_does_not_fit(monkeypatch):
    text = printed(monkeypatch, plain_table([{"a": LONG, "b": LONG}]), 60)
    assert max(map(len, text.splitlines())) <= 60 and "…" not in text
    assert text.count("9") == 60
