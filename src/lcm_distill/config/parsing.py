"""TOML text and `section.key=value` assignments to validated tables; errors name the key, the value and what to do."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from lcm_distill.config.section import AnySection
from lcm_distill.config.wrong_values import explain, start
from lcm_distill.core.errors import UserError

_LONG_KEY = re.compile(r"(?<![\"\w'-])(?:[\"\w'-]++\s*+\.\s*+){50}")
"""A dotted key of more parts than any has; the parser takes minutes over one of thousands."""
TOO_DEEP = "it is nested too deeply: correct it"


def parse_section(kind: type[AnySection], text: str, origin: str, assignments: Sequence[str] = ()) -> AnySection:
    """A section from TOML text, changed by assignments; `origin` names it in errors.

    Raises:
        UserError: it is not TOML, or keys or values are wrong.
    """
    values = read_toml(text, origin)
    try:
        for assignment in assignments:
            _assign(values, assignment)
        return validate(kind, values, origin)
    except RecursionError as error:
        raise UserError(f"{origin}: {TOO_DEEP}") from error


def read_toml(text: str, origin: str) -> dict[str, Any]:
    """Tables of TOML text, not validated.

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


def validate(kind: type[AnySection], values: Mapping[str, Any], origin: str) -> AnySection:
    """A section from its values.

    Raises:
        UserError: keys or values are wrong; one line names them all.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(explain(kind, detail) for detail in error.errors())) from error


def _assign(values: dict[str, Any], assignment: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in assignment):
        raise UserError(
            f"--set {start(assignment)} holds bytes that are not UTF-8, as all text of a configuration must be: give "
            "another value"
        )
    key, equals, text = assignment.partition("=")
    if _LONG_KEY.search(f"{key}."):
        raise RecursionError
    if not equals or not key:
        raise UserError(f"--set {assignment}: write section.key=value")
    *tables, last = key.strip().split(".")
    section = values
    for depth, table in enumerate(tables, start=1):
        if not isinstance(section.setdefault(table, {}), dict):
            value = ".".join(tables[:depth])
            raise UserError(f"--set {start(assignment)}: {value} is one value and no table: write {value}=VALUE")
        section = section[table]
    try:
        section[last] = _toml_value(text.strip())
    except ValueError as error:
        raise UserError(
            f"--set {start(assignment)} is not TOML: {error}: write a list as [1, 2], a table as {{name = 1}}"
        ) from error


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        if text.startswith(("[", "{", '"', "'")):
            raise
        return text  # a bare word is a string, as it is in a shell
