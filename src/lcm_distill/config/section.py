"""What every table of the configuration has: strict keys, an identity, and names it once had."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

SCHEMA_VERSION = 3
"""Part of every fingerprint; raised when code starts to give other bytes for the same configuration."""

NOT_IDENTITY: dict[str, Any] = {"identity": False}
"""Marks a key that changes how work is done and never what comes out."""


OLD_NAME = "old_name"
"""Marks a key that had another name: that is read as well, and stays the key's name in fingerprints."""


class Section(BaseModel):
    """A table of the configuration; unknown keys are refused and values do not change once loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = cast(dict[str, Any], values).copy()
        for name, field in cls.model_fields.items():
            old = _old_name(field, name)
            if old != name and old in given:
                given[name] = given.pop(old)
        return given


AnySection = TypeVar("AnySection", bound=Section)


def identity_of(value: Any, old_names: bool = False) -> Any:
    """A value of the configuration without the keys that do not change results.

    Args:
        old_names: call keys by the first name they had, as fingerprints do.
    """
    if not isinstance(value, BaseModel):
        return value
    return {
        _old_name(field, name) if old_names else name: identity_of(getattr(value, name), old_names)
        for name, field in type(value).model_fields.items()
        if field.json_schema_extra != NOT_IDENTITY
    }


def _old_name(field: FieldInfo, name: str) -> str:
    extra = cast(dict[str, Any], field.json_schema_extra or {})
    return extra.get(OLD_NAME, name)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested tables after their dotted keys."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(cast(Mapping[str, Any], value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
