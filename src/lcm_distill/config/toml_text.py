"""TOML text to tables; nothing that nests without end is parsed."""

import re
import tomllib
from typing import Any

from lcm_distill.core.errors import UserError

_LONG_KEY = re.compile(r"(?<![\"\w'-])(?:[\"\w'-]++\s*+\.\s*+){50}")
"""A dotted key of more parts than any has; the parser takes minutes over one of thousands."""
TOO_DEEP = "it is nested too deeply: correct it"


def is_too_long(key: str) -> bool:
    """Whether a dotted key has more parts than any has."""
    return _LONG_KEY.search(f"{key}.") is not None


def read_toml(text: str, origin: str) -> dict[str, Any]:
    """Tables of TOML text, not validated; `origin` names it in errors.

    Raises:
        UserError: it is not TOML, or nested too deeply.
    """
    try:
        if _LONG_KEY.search(text):
            raise RecursionError
        return tomllib.loads(text)
    except ValueError as error:  # also of a number with thousands of digits
        raise UserError(f"{origin} is not TOML: {error}: correct it") from error
    except RecursionError as error:
        raise UserError(f"{origin} is not TOML of a configuration: {TOO_DEEP}") from error
