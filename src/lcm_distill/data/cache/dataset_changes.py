"""A data set that grows: its new records are numbered after those that a cache has, which keep their rows."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcm_distill.core.json import parse_json
from lcm_distill.core.randomness import stable_hash
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.catalog_building import extend_annotations, replace_catalog
from lcm_distill.data.cache.replaced_images import file_state, replaced_images
from lcm_distill.data.sources.file_tree import entries, is_image
from lcm_distill.data.sources.registry import source_type

STATE_FILE = "catalog/source.json"
"""What the data set looked like when it was numbered last. A hint: without it, it is looked at again."""
NAMED = 20
"""How many records are named of each kind."""

MOST_READ = 2**30
"""Bytes of files that a look reads to compare images; whoever encodes reads all that were written since the last."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """How a data set differs from the catalog that was made of it.

    Attributes:
        added: number of samples that the catalog does not have.
        changed: identifiers of samples whose path, caption or image is another one (`data.cache.replaced_images`); the
            cache keeps the earlier ones.
        gone: identifiers of samples that the data set lists no more.
        not_compared: number of images that may be others by now and were not read.
    """

    added: int = 0
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    not_compared: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.gone)

    def figures(self) -> dict[str, int]:
        """Numbers that are not zero, by name."""
        counts = {"added": self.added, "changed": len(self.changed), "gone": len(self.gone)}
        return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class SourceState:
    """What a data set looks like.

    Attributes:
        digest: of names and sizes of its images, and of names, sizes and times of its other files. The times of images
            are left out: they differ in a copy.
        newest: when the last of its files was written, as `replaced_images.FileState.written`; None where earlier
            versions did not look.
    """

    digest: str
    newest: int | None

    def has_been_seen(self, then: "SourceState | None") -> bool:
        """Whether nothing shows that anything was written since it looked like this."""
        if then is None or self.digest != then.digest:
            return False
        return then.newest is None or self.newest is None or self.newest <= then.newest


def source_state(root: Path) -> SourceState:
    """What the data set in a folder looks like now."""
    total, newest = 0, 0  # a sum, so that nothing need be kept or sorted
    for path in (entry for entry in entries(root) if isinstance(entry, str)):
        state = file_state(root / path)
        size, time = (state.size, state.modified) if state else (None, None)
        newest = max(newest, state.written if state else 0)
        total += stable_hash(f"{path} {size}" if is_image(path) else f"{path} {(size, time)}")
    return SourceState(f"{total:x}", newest)


def remember_state(cache: Cache, state: SourceState, changes: Changes | None = None) -> None:
    """Record what the data set looked like when it was numbered, and how it differed from what is in the cache then."""
    named = {"changed": changes.changed, "gone": changes.gone} if changes is not None else {}
    content = {"state": state.digest, "newest": state.newest, **named}
    cache.storage.put(STATE_FILE, [json.dumps(content).encode()])


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
    if state.has_been_seen(remembered):
        return Changes() if extend else named
    # A cache of an earlier version does not know what it was made of: that is looked up where work begins anyway.
    if remembered is None and not extend:
        return Changes()
    catalog = cache.find_catalog()
    if catalog is None:
        return Changes()
    extension, bad = extend_annotations(cache, catalog)
    since = remembered.newest if remembered else None
    replaced = replaced_images(cache, since, frozenset(named.changed), None if extend else MOST_READ)
    changed = dict.fromkeys([*extension.changed, *replaced.sample_ids])
    changes = Changes(extension.added, tuple(changed), tuple(extension.gone), replaced.not_compared)
    if extend:
        if remembered is None or state.digest != remembered.digest:
            replace_catalog(cache, extension.catalog, bad)
        remember_state(cache, state, changes)
        _log(changes)
    return changes


def _remembered(cache: Cache) -> tuple[SourceState | None, Changes]:
    """What the data set looked like, and what was named then; earlier versions recorded neither names nor a time."""
    if not cache.storage.sizes([STATE_FILE]):
        return None, Changes()
    try:
        stored: Any = parse_json(cache.storage.read(STATE_FILE))
        changed, gone = tuple(map(str, stored.get("changed", ()))), tuple(map(str, stored.get("gone", ())))
        digest, newest = str(stored["state"]), stored.get("newest")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, Changes()
    return SourceState(digest, newest if isinstance(newest, int) else None), Changes(0, changed, gone)


def _log(changes: Changes) -> None:
    for words, names in (("changed since it was encoded, and kept as it was", changes.changed), ("gone", changes.gone)):
        for name in names[:NAMED]:
            log.warning("%s: %s", name, words)
    if changes:
        log.info("the data set has changed: %s", changes.figures())
