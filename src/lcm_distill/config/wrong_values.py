"""What is said of keys and values that a table of the configuration refuses: key, value and what to write."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, cast, get_args, get_origin

from lcm_distill.config.section import Section
from lcm_distill.core.printable_text import start

NO_TABLE = {"model_type", "model_attributes_type", "dict_type"}
LISTS = {"list_type", "tuple_type"}
"""Pydantic's names for errors: a value where a table belongs, and another one where a list does."""
PLAIN = {
    "int_parsing": "must be a whole number",
    "int_parsing_size": "has too many digits",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text in quotes",
    "list_type": "must be a list, such as [VALUE, ...]",
    "tuple_type": "must be a list, such as [VALUE, ...]",
    "path_type": "must be a path in quotes",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "too_short": "must have {min_length} or more values, not {actual_length}",
    "too_long": "must have at most {max_length} values, not {actual_length}",
}
"""What a value must be, by pydantic's names for errors; other errors keep pydantic's words."""


def explain(kind: type[Section], detail: Any) -> str:
    """One of pydantic's errors in words.

    Args:
        kind: the section that was to be made. detail: as `ValidationError.errors` gives it.
    """
    location: tuple[str | int, ...] = detail["loc"]
    key, value = ".".join(map(str, location)), detail["input"]
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}{_suggestion(kind, location)}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] in NO_TABLE:
        return f"{key} = {_shortened(value)}: {_table(kind, location, value)}"
    if location and location[-1] == "[key]":
        return f"{'.'.join(map(str, location[:-1]))}: the name {_shortened(value)} {_reason(detail)}"
    if isinstance(value, dict) and detail["type"] != "value_error":
        return f"{key} = {_shortened(cast(Any, value))}: {_no_table(kind, location, detail)}"
    shown = "" if isinstance(value, dict) else f" = {_shortened(value)}"
    named = f"{key}{shown}: " if key else ""  # what spans several tables names its keys itself
    return named + _reason(detail)


def _reason(detail: Any) -> str:
    """What a value must be."""
    if detail["type"] in PLAIN:
        return PLAIN[detail["type"]].format_map(detail.get("ctx", {}))
    return detail["msg"].removeprefix("Value error, ")


def _shortened(value: Any) -> str:
    """A value as Python writes it; of a long one the beginning."""
    return start(repr(value))


def _table(kind: type[Section], location: Sequence[str | int], value: Any) -> str:
    """What to write where a value was given for a table."""
    key = ".".join(map(str, location))
    known = _keys(kind, location)
    if not known:
        return f"{key} is a table of names and values: write {key}={{{_entry(kind, location)}}}"
    close = get_close_matches(str(value), known, n=1)
    if close:
        return f"{key} is a table: did you mean its key {close[0]}? Write {key}.{close[0]}=VALUE"
    return f"{key} is a table with the keys {', '.join(known)}: write {key}.{known[0]}=VALUE, or another of them"


def _no_table(kind: type[Section], location: Sequence[str | int], detail: Any) -> str:
    """What to write where a table was given for a value."""
    inside = next((place for place, part in enumerate(location) if isinstance(part, int)), None)
    key, listed = ".".join(map(str, location[:inside])), inside is not None or detail["type"] in LISTS
    wanted = "must be a list" if detail["type"] in LISTS else _reason(detail).removesuffix(" in quotes")
    written = f"{key}={'[VALUE, ...]' if listed else 'VALUE'}"
    if not listed and _section(kind, location[:-1]) is None:  # a table of names, which may have dots
        table, name = ".".join(map(str, location[:-1])), location[-1]
        written += "".join(f' or {table}={{"{name}.{more}" = VALUE}}' for more in list(detail["input"])[:1])
    return f"{wanted}, not a table: write {written}"


def _entry(kind: type[Section], location: Sequence[str | int]) -> str:
    """What an entry of a table without keys of its own looks like."""
    section = _section(kind, location[:-1])
    annotation: Any = section.model_fields[str(location[-1])].annotation if section else None
    tables = [each for each in (annotation, *get_args(annotation)) if get_origin(each) is dict]
    name, value = get_args(tables[0]) if tables else (str, str)
    number = int in (name, *get_args(name))
    return f"{'1' if number else 'NAME'} = {'[VALUE, ...]' if get_origin(value) is list else 'VALUE'}"


def _suggestion(kind: type[Section], location: Sequence[str | int]) -> str:
    known = _keys(kind, location[:-1])
    close = get_close_matches(str(location[-1]), known, n=1)
    return f": did you mean {close[0]}?" if close else f": known keys are {', '.join(known)}" if known else ""


def _keys(kind: type[Section], location: Sequence[str | int]) -> list[str]:
    section = _section(kind, location)
    return list(section.model_fields) if section else []


def _section(kind: type[Section], location: Sequence[str | int]) -> type[Section] | None:
    """The section at a place below another one; None where no section is."""
    section: Any = kind
    for part in location:
        field = section.model_fields.get(part)
        annotation: Any = getattr(field, "annotation", None)
        kinds = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
        section = next((each for each in kinds if issubclass(each, Section)), None)
        if section is None:
            return None
    return section
