# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
"""A data set that grows: its new records are numbered after those that a cache has, which keep their rows."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow.compute as pc

from lcm_distill.core.json import parse_json
from lcm_distill.core.randomness import stable_hash
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.catalog_building import extend_annotations, replace_catalog
from lcm_distill.data.sources.file_tree import entries, is_image
from lcm_distill.data.sources.registry import source_type
from lcm_distill.pipeline.manifest import OK

STATE_FILE = "catalog/source.json"
"""What the data set looked like when it was numbered last. A hint: without it, it is looked at again."""
NAMED = 20
"""How many records are named of each kind."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """How a data set differs from the catalog that was made of it.

    Attributes:
        added: number of samples that the catalog does not have.
        changed: identifiers of samples whose path, caption or image is another one; the cache keeps the earlier ones.
            An image counts as another one if its file has another size.
        gone: identifiers of samples that the data set lists no more.
    """

    added: int = 0
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.gone)

    def figures(self) -> dict[str, int]:
        """Numbers that are not zero, by name."""
        counts = {"added": self.added, "changed": len(self.changed), "gone": len(self.gone)}
        return {name: count for name, count in counts.items() if count}


def source_state(root: Path) -> str:
    """A digest of names and sizes of a data set's images, and of names, sizes and times of its other files.

    The times of images are left out: they differ in a copy.
    """
    total = 0  # a sum, so that nothing need be kept or sorted
    for path in (entry for entry in entries(root) if isinstance(entry, str)):
        size, time = _size_and_time(root / path) or (None, None)
        total += stable_hash(f"{path} {size}" if is_image(path) else f"{path} {(size, time)}")
    return f"{total:x}"


def _size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns


def remember_state(cache: Cache, state: str, changes: Changes | None = None) -> None:
    """Record what the data set looked like when it was numbered, and how it differed from what is in the cache then."""
    named = {"changed": changes.changed, "gone": changes.gone} if changes else {}
    cache.storage.put(STATE_FILE, [json.dumps({"state": state, **named}).encode()])


def find_changes(cache: Cache) -> Changes:
    """How the data set differs from the cache; nothing is stored.

    What was named when it was taken up last is named again, as long as the cache keeps what was there before.

    Raises:
        UserError: there is no data set.
        DataError: the catalog is damaged.
    """
    return _differences(cache, extend=False)


def take_up_changes(cache: Cache) -> Changes:
    """Extend the catalog by what is new in the data set, and record what is rejected now.

    Raises:
        UserError: there is no data set.
        DataError: the catalog is damaged.
    """
    return _differences(cache, extend=True)


def _differences(cache: Cache, extend: bool) -> Changes:
    if source_type(cache.config.data).generated or not cache.source_root.is_dir():
        return Changes()
    state, (remembered, named) = source_state(cache.source_root), _remembered(cache)
    if state == remembered:
        return Changes() if extend else named
    # A cache of an earlier version does not know what it was made of: that is looked up where work begins anyway.
    if remembered is None and not extend:
        return Changes()
    catalog = cache.find_catalog()
    if catalog is None:
        return Changes()
    extension, bad = extend_annotations(cache, catalog)
    changed = dict.fromkeys([*extension.changed, *_replaced_images(cache)])
    changes = Changes(extension.added, tuple(changed), tuple(extension.gone))
    if extend:
        replace_catalog(cache, extension.catalog, bad)
        remember_state(cache, state, changes)
        _log(changes)
    return changes


def _replaced_images(cache: Cache) -> Iterator[str]:
    """Identifiers of samples whose image file has another size than the one that was encoded; not in archives."""
    source = cache.source
    rows = cache.manifest.read(columns=["sample_id", "source", "status", "image_bytes"])
    encoded = rows.filter((pc.field("status") == OK) & pc.field("image_bytes").is_valid()).to_pylist()
    for row in encoded:
        file = source.file_of(row["source"])
        if file.name == PurePosixPath(row["source"]).name:
            found = _size_and_time(file)
            if found and found[0] != row["image_bytes"]:
                yield row["sample_id"]


def _remembered(cache: Cache) -> tuple[str | None, Changes]:
    """What the data set looked like, and what was named then; earlier versions recorded no names."""
    if not cache.storage.sizes([STATE_FILE]):
        return None, Changes()
    try:
        stored = parse_json(cache.storage.read(STATE_FILE))
        return stored["state"], Changes(0, tuple(stored.get("changed", ())), tuple(stored.get("gone", ())))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, Changes()


def _log(changes: Changes) -> None:
    for words, names in (("changed since it was encoded, and kept as it was", changes.changed), ("gone", changes.gone)):
        for name in names[:NAMED]:
            log.warning("%s: %s", name, words)
    if changes:
        log.info("the data set has changed: %s", changes.figures())
