"""Choosing a caption among the texts of a record."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any, cast

from lcm_distill.core.randomness import stable_hash
from lcm_distill.data.sources.text import decode_text, parse_object

TEXT_SUFFIXES = (".cap", ".caption", ".txt")
CAPTION_SUFFIXES = (*TEXT_SUFFIXES, ".json")
"""Suffixes of files with the caption of the image of the same name; where several are there, later ones prevail."""


def read_fields(suffix: str, content: bytes, text: str) -> dict[str, Any]:
    """The fields of a caption file: those of its JSON object, or the whole of a file of text.

    Args:
        suffix: of the file, one of `CAPTION_SUFFIXES`.
        text: name of the field that a file of text becomes.

    Raises:
        ValueError: it is no JSON object, or not UTF-8 or marked as another encoding.
    """
    return parse_object(content) if suffix == ".json" else {text: decode_text(content)}


def caption_of_files(
    files: Iterable[tuple[str, bytes | Exception]],
    text: str,
    shares: Mapping[str, float],
    sample_id: str,
    known: Mapping[str, Any] | None = None,
) -> str:
    """The caption of an image that has caption files of its own: `choose_caption` among all their fields.

    Args:
        files: suffix and content of each, or why it cannot be read.
        text: as for `read_fields`.
        known: fields from elsewhere, over which those of the files prevail.

    Raises:
        ValueError: no field has text; the message is about the first file that cannot be used, if there is one.
    """
    record, flaws = dict(known or {}), list[str]()
    for suffix, content in files:
        try:
            if isinstance(content, Exception):
                raise ValueError(str(content))
            fields = read_fields(suffix, content, text)
            record |= {name: value for name, value in fields.items() if value is not None}
        except ValueError as error:
            flaws.append(f"its {suffix} is unusable: {error}")
    try:
        return choose_caption(record, shares, sample_id)
    except ValueError:
        if flaws:
            raise ValueError(flaws[0]) from None
        raise


def choose_caption(record: Mapping[str, Any], shares: Mapping[str, float], sample_id: str) -> str:
    """The text of a field of `record` that is drawn at random, as a function of `sample_id` only.

    Where that field has no text, the first one that has is taken. Of a list of texts one is drawn in the same way.

    Args:
        shares: weights by field. A dot separates the names of nested records, `Task2.Caption`, unless the record has
            a field of that whole name.

    Raises:
        ValueError: no field has text.
    """
    fields = [_drawn(shares, sample_id), *shares]
    for value in (look_up(record, field) for field in fields):
        if text := _one_text(value, sample_id):
            return text
    raise ValueError(f"no {' or '.join(shares)}")


def look_up(record: Any, field: str) -> Any:
    """The value of a field, whose name may lead through nested records; None if there is none."""
    names = [field] if isinstance(record, Mapping) and field in record else field.split(".")
    value: Any = cast(Any, record)
    for name in names:
        value = cast(Mapping[str, Any], value).get(name) if isinstance(value, Mapping) else None
    return value


def _one_text(value: Any, sample_id: str) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if not isinstance(value, list):
        return None
    texts = [text.strip() for text in cast(list[Any], value) if isinstance(text, str) and text.strip()]
    return texts[stable_hash(f"caption in the list of {sample_id}") % len(texts)] if texts else None


def _drawn(shares: Mapping[str, float], sample_id: str) -> str:
    bounds = list(accumulate(shares.values()))
    point = stable_hash(f"caption of {sample_id}") / 2**63 * bounds[-1]
    return list(shares)[min(bisect_right(bounds, point), len(bounds) - 1)]
