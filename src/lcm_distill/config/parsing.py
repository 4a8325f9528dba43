"""TOML text and assignments to validated tables; errors name the key, the value, where it stands and what to do."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from lcm_distill.config.assignments import Assignment, assigned, blamed, named
from lcm_distill.config.section import AnySection
from lcm_distill.config.toml_text import TOO_DEEP, read_toml
from lcm_distill.config.wrong_values import explain
from lcm_distill.core.errors import UserError


def parse_section(kind: type[AnySection], text: str, origin: str, assignments: Sequence[Assignment] = ()) -> AnySection:
    """A section from TOML text, changed by assignments; `origin` names it in errors that come from none of these.

    Raises:
        UserError: it is not TOML, or keys or values are wrong.
    """
    values = read_toml(text, origin)
    options = list(map(named, assignments))
    try:
        return _validated(kind, assigned(values, options), origin, values, options)
    except RecursionError as error:
        raise UserError(f"{origin}: {TOO_DEEP}") from error


def validate(kind: type[AnySection], values: Mapping[str, Any], origin: str) -> AnySection:
    """A section from its values.

    Raises:
        UserError: keys or values are wrong; one line names them all.
    """
    return _validated(kind, values, origin, values, [])


def _validated(
    kind: type[AnySection],
    values: Mapping[str, Any],
    origin: str,
    plain: Mapping[str, Any],
    options: Sequence[tuple[str, str]],
) -> AnySection:
    """A section; `plain` are the values without the assignments that `options` are."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        details = error.errors()
        places = blamed(kind, plain, options, details)
        lines = [(place or origin, explain(kind, detail)) for place, detail in zip(places, details, strict=True)]
        groups = groupby(lines, key=lambda line: line[0])
        said = "; ".join(f"{place}: {'; '.join(text for _, text in group)}" for place, group in groups)
        raise UserError(said) from error
