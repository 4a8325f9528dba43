"""Choosing a caption among the texts of a record."""

import json
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, cast

from lcm_distill.core.randomness import stable_hash

CAPTION_SUFFIXES = (".txt", ".json")
"""Suffixes of files with the caption of the image of the same name."""


def read_fields(suffix: str, content: bytes, text: str) -> dict[str, Any]:
    """The fields of a caption file: those of its JSON object, or the whole of a `.txt` file.

    Args:
        suffix: of the file, one of `CAPTION_SUFFIXES`.
        text: name of the field that a `.txt` file becomes.
    """
    words = content.decode("utf-8", errors="replace")
    if suffix == ".txt":
        return {text: words}
    try:
        record = json.loads(words)
    except json.JSONDecodeError:
        return {}
    return cast(dict[str, Any], record) if isinstance(record, dict) else {}


def choose_caption(record: Mapping[str, Any], shares: Mapping[str, float], sample_id: str) -> str:
    """The text of a field of `record` that is drawn at random, as a function of `sample_id` only.

    Where that field has no text, the first one that has is taken.

    Args:
        shares: weights by field. A dot separates the names of nested records: `Task2.Caption`.

    Raises:
        ValueError: no field has text.
    """
    fields = [_drawn(shares, sample_id), *shares]
    for text in (_look_up(record, field) for field in fields):
        if isinstance(text, str) and text.strip():
            return text.strip()
    raise ValueError(f"no {' or '.join(shares)}")


def _drawn(shares: Mapping[str, float], sample_id: str) -> str:
    bounds = list(accumulate(shares.values()))
    point = stable_hash(f"caption of {sample_id}") / 2**63 * bounds[-1]
    return list(shares)[min(bisect_right(bounds, point), len(bounds) - 1)]


def _look_up(record: Any, field: str) -> Any:
    for name in field.split("."):
        record = cast(Mapping[str, Any], record).get(name) if isinstance(record, Mapping) else None
    return record
