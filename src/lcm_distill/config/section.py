"""What every table of the configuration has: strict keys, an identity, and names it once had."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

SCHEMA_VERSION = 3
"""Part of every fingerprint; raised when code starts to give other bytes for the same configuration."""


class OnResume(StrEnum):
    """What a change of a key does where work with another value has begun."""

    SAME = "changes no bit of the result"
    ROUNDING = "changes the result in rounding alone"
    """Sums are taken in another order."""
    REFUSED = "is refused"
    """Nothing changes on disk, and the plain command goes on with the value that the work began with."""
    CONTINUED = "is refused, unless it is higher and the training is finished: it is then continued"
    """Where the number decides nothing in the steps that are done; otherwise it is refused like any other."""
    NEW_WORK = "makes new work"
    """What the new value asks for is made; nothing that was made for the other value counts for it."""


IDENTITY, ON_RESUME = "identity", "on_resume"

NOT_IDENTITY: dict[str, Any] = {IDENTITY: False, ON_RESUME: OnResume.SAME}
"""Marks a key that changes how work is done and never what comes out."""
ROUNDS: dict[str, Any] = {IDENTITY: False, ON_RESUME: OnResume.ROUNDING}
"""Marks a key that changes how work is done, and what comes out in rounding alone; fingerprints leave it out too."""
BY_CONTENT: dict[str, Any] = {IDENTITY: False}
"""Marks a path: what lies there is part of an identity, and not where it lies."""

OLD_NAME = "old_name"
"""Marks a key that had another name: that is read as well, and stays the key's name in fingerprints."""
ADDED: dict[str, Any] = {"added": True}
"""Marks a key that came after others: at its default, which is what there was before it, fingerprints leave it out."""


class Section(BaseModel):
    """A table of the configuration; unknown keys are refused and values do not change once loaded.

    Attributes:
        on_resume: of keys that are not marked otherwise.
    """

    on_resume: ClassVar[OnResume] = OnResume.REFUSED

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _name_a_path(cls, value: Any, info: ValidationInfo) -> Any:
        # An empty path, such as that of a shell variable that is not set, would be the working directory.
        if value == "" and info.field_name and Path in _kinds(cls.model_fields[info.field_name].annotation):
            raise ValueError("is empty: name a file or folder, or leave the key out")
        return value

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


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """A type, or the members of a union."""
    return get_args(annotation) or (annotation,)


AnySection = TypeVar("AnySection", bound=Section)


def identity_of(value: Any, fingerprint: bool = False) -> Any:
    """A value of the configuration without the keys that do not change results.

    Args:
        fingerprint: as fingerprints have it, which older versions can have made: call keys by the first name they had,
            and leave out those that are `ADDED` and have their default.
    """
    if not isinstance(value, BaseModel):
        return value
    return {
        _old_name(field, name) if fingerprint else name: identity_of(own, fingerprint)
        for name, field in type(value).model_fields.items()
        for own in [getattr(value, name)]
        if _extra(field).get(IDENTITY, True) and not (fingerprint and _extra(field) == ADDED and own == field.default)
    }


def _old_name(field: FieldInfo, name: str) -> str:
    return _extra(field).get(OLD_NAME, name)


def resumption(section: type[Section], name: str) -> OnResume:
    """What a key of a section that is changed between two lives of a run does."""
    return _extra(section.model_fields[name]).get(ON_RESUME, section.on_resume)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return cast(dict[str, Any], field.json_schema_extra or {})


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested tables after their dotted keys."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(cast(Mapping[str, Any], value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
