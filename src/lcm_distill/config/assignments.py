"""`section.key=value` assignments: what they make of tables, and which of them is to blame for what is wrong then."""

import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from lcm_distill.config.section import AnySection
from lcm_distill.config.toml_text import TOO_DEEP, is_too_long
from lcm_distill.core.errors import UserError
from lcm_distill.core.printable_text import start

Named = tuple[str, str]
"""What an assignment was given as, such as `--guidance 1,2`, which errors begin with; and the assignment."""
Assignment = str | Named
"""One alone is a value of `--set`."""


def named(assignment: Assignment) -> Named:
    """An assignment with what it was given as."""
    return (f"--set {start(assignment)}", assignment) if isinstance(assignment, str) else assignment


def assigned(values: Mapping[str, Any], assignments: Sequence[Named]) -> dict[str, Any]:
    """Tables, changed by assignments, of which the last counts.

    Raises:
        UserError: one is no assignment.
    """
    changed = deepcopy(dict(values))
    for place, assignment in assignments:
        try:
            _assign(changed, place, assignment)
        except RecursionError as error:
            raise UserError(f"{place}: {TOO_DEEP}") from error
    return changed


def blamed(
    kind: type[AnySection], values: Mapping[str, Any], assignments: Sequence[Named], details: Sequence[Any]
) -> list[str]:
    """For each of pydantic's errors what the assignments that it comes from were given as; empty where none is.

    An error comes from an assignment without which it is not met, or from all of them where that is true of no single
    one.

    Args:
        values: without the assignments. details: as `ValidationError.errors` gives them, with all assignments.
    """
    places = {_key(assignment): place for place, assignment in assignments}
    without = {
        key: _errors(kind, assigned(values, [each for each in assignments if _key(each[1]) != key])) for key in places
    }
    plain = _errors(kind, values)
    found: list[str] = []
    for error in map(_identity, details):
        causes = [place for key, place in places.items() if error not in without[key]]
        found.append(" and ".join(causes or ([] if error in plain else places.values())))
    return found


def _assign(values: dict[str, Any], place: str, assignment: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in assignment):
        raise UserError(
            f"{place} holds bytes that are not UTF-8, as all text of a configuration must be: give another value"
        )
    key, equals, text = assignment.partition("=")
    if is_too_long(key):
        raise RecursionError
    if not equals or not key:
        raise UserError(f"{place}: write section.key=value")
    *tables, last = _key(assignment).split(".")
    section = values
    for depth, table in enumerate(tables, start=1):
        if not isinstance(section.setdefault(table, {}), dict):
            value = ".".join(tables[:depth])
            raise UserError(f"{place}: {value} is one value and no table: write {value}=VALUE")
        section = section[table]
    try:
        section[last] = _toml_value(text.strip())
    except ValueError as error:
        raise UserError(f"{place} is not TOML: {error}: write a list as [1, 2], a table as {{name = 1}}") from error


def _key(assignment: str) -> str:
    return assignment.partition("=")[0].strip()


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        if text.startswith(("[", "{", '"', "'")):
            raise
        return text  # a bare word is a string, as it is in a shell


def _errors(kind: type[AnySection], values: Mapping[str, Any]) -> list[Any]:
    try:
        kind.model_validate(values)
    except ValidationError as error:
        return list(map(_identity, error.errors()))
    return []


def _identity(detail: Any) -> Any:
    """What tells an error from others; of one about a whole table the message does, whatever else it holds."""
    value = detail["input"]
    return detail["loc"], detail["type"], detail["msg"], None if isinstance(value, dict) else value
