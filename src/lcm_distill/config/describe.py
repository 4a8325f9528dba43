"""Every key of a configuration with its value, its type and what it does, and how two configurations differ."""

import ast
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from textwrap import dedent
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from lcm_distill.config.run import Config
from lcm_distill.config.section import OnResume, Section, flatten, resumption


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: dotted, as `--set` takes it. value: as the configuration has it. type: of the value, as Python writes it.
        help: what it does. on_resume: what another value does once work has begun.
    """

    name: str
    value: Any
    type: str
    help: str
    on_resume: OnResume


def describe(config: Config) -> list[Key]:
    """Every key of a configuration, in order of declaration."""
    return list(_keys(type(config), config, ""))


def differing(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """The values of both of every key that is not equal; None where only one of them has the key."""
    ours, theirs = (dict(flatten(config.model_dump(mode="json"))) for config in (one, other))
    return {key: (ours.get(key), theirs.get(key)) for key in (ours | theirs) if ours.get(key) != theirs.get(key)}


def shown_value(value: Any) -> str:
    """A value as a configuration file has it, text without quotes; `unset` for None."""
    if value is None:
        return "unset"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _keys(kind: type[Section], section: Section | None, prefix: str) -> Iterator[Key]:
    """The keys of a section; without values where the configuration has none such."""
    texts = docstrings(kind)
    for name, field in kind.model_fields.items():
        value = getattr(section, name, None)
        inner = type(value) if isinstance(value, Section) else _section_of(field.annotation)
        if inner:
            yield from _keys(inner, value, f"{prefix}{name}.")
        else:
            yield Key(
                f"{prefix}{name}",
                section.model_dump(mode="json", include={name})[name] if section else None,
                _type(field.annotation),
                " ".join(texts.get(name, "").split()),
                resumption(kind, name),
            )


def docstrings(kind: type[Section]) -> dict[str, str]:
    """What stands below each key in the source of a section, and of those it extends.

    Pydantic would parse the sources whenever a command starts.
    """
    texts: dict[str, str] = {}
    for section in reversed(kind.__mro__[: kind.__mro__.index(Section)]):
        (written,) = ast.parse(dedent(inspect.getsource(section))).body
        assert isinstance(written, ast.ClassDef)
        for key, text in pairwise(written.body):
            if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name) and isinstance(text, ast.Expr):
                texts[key.target.id] = ast.literal_eval(text.value)
    return texts


def _section_of(annotation: Any) -> type[Section] | None:
    """The section that an optional one would be, if it is one."""
    kinds = [kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, Section)]
    return kinds[0] if kinds else None


def _type(annotation: Any) -> str:
    """A type in words: `list[float]`, `"none" | "fsdp"`, `int | None`; limits of numbers are left out."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " | ".join(json.dumps(value) for value in arguments)
    if origin in (Union, UnionType):
        return " | ".join(map(_type, arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_type, arguments))}]"
    return "None" if annotation is type(None) else str(annotation.__name__).lower()
