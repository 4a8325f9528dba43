"""What others wrote, made safe to show."""

import pytest

from lcm_distill.core.printable_text import one_line, printable


@pytest.mark.parametrize("harmless", ["", "Fréchet, ± 0.5, 一, 👩‍👩‍👧", "tab\tand\nline", "[/b] [red]"])
def test_text_stays(harmless):
    assert printable(harmless) == harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[2J", "\\x1b[2J"), ("\x9b1m\x7f\0", "\\x9b1m\\x7f\\x00"), ("a\rb", "a\\rb"),
     ("\u202ecod\u202c", "\\u202ecod\\u202c"),
     ("\u2066\u200f\u061c\u2028", "\\u2066\\u200f\\u061c\\u2028"), ("\udcff", "\\udcff")],
)  # fmt: skip
def test_what_a_terminal_obeys_is_escaped(text, shown):
    assert printable(text) == shown
    shown.encode()


def test_one_line():
    assert one_line(" a\n\tb \x1b ") == "a b \\x1b"
