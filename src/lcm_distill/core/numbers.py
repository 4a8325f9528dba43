"""Numbers that somebody else wrote or gave: whether they are any."""

import math
from collections.abc import Mapping
from typing import Any


def is_whole(number: Any) -> bool:
    """Whether this is a whole number, of whatever type; NaN, infinity, text and truth values are none."""
    try:
        return not isinstance(number, bool) and bool(number == int(number))
    except (TypeError, ValueError, OverflowError):
        return False


def is_number(value: Any) -> bool:
    """Whether this is a finite number, of whatever type; text and truth values are none."""
    try:
        return not isinstance(value, bool) and math.isfinite(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last of a tensor of several
        return False


def require_number(name: str, value: Any, least: float, most: float = math.inf, whole: bool = False) -> None:
    """Check a number of a file or of a caller.

    Args:
        name: of the number, for the message.
        least, most: the range that it must lie in.
        whole: whether it must be whole.

    Raises:
        ValueError: it is none, or lies outside; one line.
    """
    if not is_number(value) or not least <= value <= most or (whole and not is_whole(value)):
        upper = f"and {most:,g} at most" if most < math.inf else "and finite"
        kind = "a whole number, " if whole else "a number, "
        raise ValueError(f"{name} is {value!r:.60}: it must be {kind}{least:g} or more, {upper}")


def require_sizes(values: Mapping[str, Any], ranges: Mapping[str, tuple[int, int]]) -> None:
    """Check the whole numbers of a table that somebody else wrote; those that it lacks are not looked at.

    Args:
        ranges: the least and the most that each may be, by name.

    Raises:
        ValueError: one is no whole number, or lies outside; one line.
    """
    for name in ranges.keys() & values.keys():
        require_number(name, values[name], *ranges[name], whole=True)
