"""Which of a record's texts is its caption."""

import json
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from lcm_distill.core.randomness import stable_hash

TEXTS = (".txt", ".json")
"""Endings of files that say what the image of the same name shows."""


def read_fields(suffix: str, content: bytes, text: str) -> dict[str, Any]:
    """The fields of a file beside an image: those of its JSON object, or `text` for a whole `.txt`."""
    words = content.decode("utf-8", errors="replace")
    if suffix == ".txt":
        return {text: words}
    try:
        record = json.loads(words)
    except json.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}


def choose_caption(record: Mapping[str, Any], shares: Mapping[str, float], sample_id: str) -> str:
    """The text of one field of `record`, drawn by `shares`; the draw depends on the sample's name alone.

    Where the drawn field holds no text, the first one that does is taken.

    Args:
        shares: field -> weight. A dot steps into a nested record: `Task2.Caption`.

    Raises:
        ValueError: no field holds text.
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
        record = record.get(name) if isinstance(record, Mapping) else None
    return record
