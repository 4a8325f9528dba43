"""JSON files beside an archive, with texts by the names of its images: `0.json` and `0_<anything>.json` for `0.tar`.

Sana's data sets have captions and scores in such files (`diffusion/data/datasets/sana_data.py` of NVlabs/Sana): the
text of each image is in `0_InternVL2-26B.json`, in the field `InternVL2-26B`, and its score in a field of the same name
of `0_InternVL2-26B_clip_score.json`.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from lcm_distill.core.regular_files import read_regular
from lcm_distill.formats.text import MAX_TABLE_BYTES, parse_object

SCORES = "_clip_score.json"
"""End of the names of files that have no texts."""
Fields = Mapping[str, Any]
"""Values by the name of a field."""

_NUMBER = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf)", re.IGNORECASE)


def sidecars_of(stems: Collection[str], files: Iterable[str]) -> dict[str, list[str]]:
    """The JSON files of each archive, by its path without suffix: of several that fit, the longest has a file."""
    found: dict[str, list[str]] = {}
    for path in files:
        if path.endswith(".json") and not path.endswith(SCORES):
            owner = next((stem for stem in _beginnings(path.removesuffix(".json")) if stem in stems), None)
            if owner is not None:
                found.setdefault(owner, []).append(path)
    return found


@dataclass
class Sidecars:
    """What the JSON files beside an archive say of its images, by the names that they have there.

    Attributes:
        fields: of each name; those of later files prevail.
        files: the names that each file has a text for.
    """

    fields: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    files: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, root: Path, file: str) -> None:
        """Add the fields of each image that a JSON object has a record or a text of, which is the field `txt`.

        A field whose values are all numbers holds scores, and no texts: it is left aside.

        Args:
            file: its path below `root`.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        records: dict[str, Fields] = {}
        for name, value in parse_object(read_regular(root / file, MAX_TABLE_BYTES)).items():
            if isinstance(value, str | dict):
                records[name] = {"txt": value} if isinstance(value, str) else cast(dict[str, Any], value)
        texts = {name for record in records.values() for name, value in record.items() if not _is_number(value)}
        for name, record in records.items():
            own = {field: value for field, value in record.items() if field in texts and value is not None}
            self.fields.setdefault(name, {}).update(own)
            if own:
                self.files.setdefault(file, []).append(name)

    def of(self, stem: str) -> Fields | None:
        """The fields of an image, by its name without suffix, with the folders that it lies in or without."""
        return self.fields.get(stem) or self.fields.get(PurePosixPath(stem).name)

    def orphans(self, stems: Iterable[str]) -> Iterator[str]:
        """`file: name` of each text for a name that is none of these images."""
        known = {name for stem in stems for name in (stem, PurePosixPath(stem).name)}
        return (f"{file}: {name}" for file, names in self.files.items() for name in names if name not in known)


def _beginnings(stem: str) -> Iterable[str]:
    """A path, and what precedes each `_` of its last name, the longest first."""
    parts = PurePosixPath(stem).name.split("_")
    folder = stem.removesuffix("_".join(parts))
    return (folder + "_".join(parts[:count]) for count in range(len(parts), 0, -1))


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _NUMBER.fullmatch(value.strip()) is not None
    return value is None or isinstance(value, int | float)
