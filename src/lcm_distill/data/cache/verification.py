# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""Checking a cache: catalog, manifest and shards against what was recorded when they were committed."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from lcm_distill.arrays.format import Field, broken_rows
from lcm_distill.arrays.metadata import read_metadata, require_description
from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.data.cache.catalog_files import FILES, examine_catalog_file
from lcm_distill.data.cache.kept_rows import is_under_way
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK
from lcm_distill.data.cache.unfinished import is_of_fewer_rows
from lcm_distill.pipeline.file_verification import examine
from lcm_distill.pipeline.manifest import Manifest, part_name, task_of_part
from lcm_distill.pipeline.manifest_parts import Entry, read_entries
from lcm_distill.pipeline.storage import Storage, WrittenFile
from lcm_distill.pipeline.task import Progress, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Damage:
    """A difference from what was written.

    Attributes:
        task: the task that wrote it; None where a file of many tasks no longer tells.
        path: the file, relative to the cache.
        row: the row of the field; None if it is the whole file.
        reason: the difference.
    """

    task: str | None
    path: str
    row: int | None
    reason: str


@dataclass
class Check:
    """A check of a cache.

    Attributes:
        damage: what was found.
        rows_of: numbers of rows whose bytes were compared, by task.
        unfinished: names of tasks that have not been done, or only for the rows that there were before the data set
            grew, which is no damage.
    """

    cache: Cache
    damage: list[Damage] = field(default_factory=list[Damage])
    rows_of: dict[str, int] = field(default_factory=dict[str, int])
    unfinished: set[str] = field(default_factory=set[str])

    @property
    def pending(self) -> int:
        """Number of tasks that `lcm precompute` has still to do."""
        return len(self.unfinished)

    @property
    def rows(self) -> int:
        """Number of rows whose bytes were compared, each counted once."""
        return sum(self.rows_of.values())

    def everything(self, label: str = "verify") -> Iterator[Progress]:
        """Check catalog and manifest, and every shard unless the catalog, which determines them, is damaged."""
        _check_catalog(self)
        yield from self.tasks([] if self.damage else self.cache.tasks(), label)

    def tasks(self, tasks: Sequence[Task], label: str = "verify") -> Iterator[Progress]:
        """Check the manifest, and the shards of the given tasks."""
        yield from _check_tasks(self, tasks, label)

    def found(self, task: str | None, path: str, reason: str, row: int | None = None) -> None:
        """Record damage."""
        log.warning("%s%s: %s", path, "" if row is None else f", row {row}", reason)
        self.damage.append(Damage(task, path, row, reason))


def readable_entries(storage: Storage, file: str) -> list[Entry]:
    """The tasks of a manifest's file; empty if it cannot be read."""
    try:
        return read_entries(storage, file)
    except DataError:
        return []


def _check_catalog(check: Check) -> None:
    part = part_name(CATALOG_TASK)
    try:
        entry = _entry_of_catalog(check.cache.manifest)
    except DataError:
        check.found(CATALOG_TASK, part, "the manifest part is damaged")
        return
    if entry is None:
        check.found(CATALOG_TASK, part, "the manifest part is missing")
    elif entry.fingerprint != check.cache.layout.fingerprint:
        check.found(CATALOG_TASK, part, "was made with other settings")
    else:
        for name in sorted({*FILES} - {file.name for file in entry.files}):
            check.found(CATALOG_TASK, name, "its hash was not recorded")
        for file in entry.files:
            if reason := examine_catalog_file(check.cache.storage, file)[0]:
                check.found(CATALOG_TASK, file.name, reason)


def _entry_of_catalog(manifest: Manifest) -> Entry | None:
    """From its own part or a merged file; damage of other parts is found later.

    Raises:
        DataError: the file that contains it is damaged.
    """
    files = [part_name(CATALOG_TASK)] if part_name(CATALOG_TASK) in manifest.loose_parts() else manifest.merged_files()
    for file in files:
        loose = file == part_name(CATALOG_TASK)
        entries = read_entries(manifest.storage, file) if loose else readable_entries(manifest.storage, file)
        for entry in entries:
            if entry.task == CATALOG_TASK:
                list(manifest.rows(file))
                return entry
    return None


def _check_tasks(check: Check, tasks: Sequence[Task], label: str) -> Iterator[Progress]:
    by_name, seen = {task.name: task for task in tasks}, set[str]()
    manifest = check.cache.manifest
    fields = _check_fields(check, tasks)
    if tasks:
        yield Progress(label, 0, len(tasks), "shards")
    for file in manifest.files():
        for entry, rows in _rows_of(check, manifest, file, by_name):
            if entry.task in seen:
                check.found(entry.task, file, "the task is in another file of the manifest as well")
            elif entry.task in by_name:
                seen.add(entry.task)
                _check_task(check, by_name[entry.task], entry, rows, fields, file)
                if len(seen) < len(tasks):
                    yield Progress(label, len(seen), len(tasks), "shards", {"broken": len(check.damage)})
    _check_absent(check, [task for task in tasks if task.name not in seen])
    yield Progress(label, len(tasks), len(tasks), "shards", {"broken": len(check.damage)})


def _rows_of(check: Check, manifest: Manifest, file: str, tasks: dict[str, Task]) -> Iterator[tuple[Entry, pa.Table]]:
    if file == part_name(CATALOG_TASK):
        return  # checked already
    try:
        yield from manifest.rows(file)
    except DataError:
        task = task_of_part(file)
        check.found(task if task in tasks else None, file, "the manifest part is damaged")


def _check_fields(check: Check, tasks: Sequence[Task]) -> dict[str, Field]:
    """Fields by name, without those whose metadata is damaged or which have no shard yet."""
    fields: dict[str, Field] = {}
    if not tasks:
        return fields
    catalog, storage = check.cache.read_catalog(), check.cache.storage
    for name, first in {task.inputs["field"]: task for task in reversed(tasks)}.items():
        metadata = f"{name}/zarr.json"
        if not storage.sizes([metadata]) and not storage.sizes(_shards_of(name, tasks)):
            continue
        try:
            fields[name] = _described_field(check, first, catalog, tasks)
        except DataError:
            check.found(first.name, metadata, "is missing or does not describe the field")
    return fields


def _described_field(check: Check, task: Task, catalog: Catalog, tasks: Sequence[Task]) -> Field:
    """The field of a task, whose metadata agrees.

    It has fewer rows until the first shard with more of them is written.

    Raises:
        DataError: the metadata is missing or differs.
    """
    cache = check.cache
    stored = cache.task_field(task, catalog)
    rows = min(stored.rows, read_metadata(cache.storage, stored.metadata_name, cache.repair)["shape"][0])
    later = {
        task.name: task.fingerprint
        for task in tasks
        if task.inputs["field"] == stored.name and task.inputs["stop"] > rows
    }
    if not later or _any_is_committed(cache.manifest, later):
        rows = stored.rows
    require_description(cache.storage, replace(stored, rows=rows), cache.repair)
    return stored


def _any_is_committed(manifest: Manifest, fingerprints: dict[str, str]) -> bool:
    """Whether a part that can be read has one of the tasks with its fingerprint."""
    entries = (entry for file in manifest.files() for entry in readable_entries(manifest.storage, file))
    return any(fingerprints.get(entry.task) == entry.fingerprint for entry in entries)


def _shards_of(field_name: str, tasks: Sequence[Task]) -> list[str]:
    return [task.inputs["file"] for task in tasks if task.inputs["field"] == field_name]


def _check_absent(check: Check, tasks: Sequence[Task]) -> None:
    """A shard without a part lost it, unless tasks are being done: then it was interrupted, as others had not begun."""
    interrupted = is_under_way(check.cache.storage)
    left = check.cache.storage.sizes([task.inputs["file"] for task in tasks])
    for task in tasks:
        if any(damage.task == task.name for damage in check.damage):
            continue
        if task.inputs["file"] in left and not interrupted:
            check.found(task.name, part_name(task.name), "the manifest part is missing")
        else:
            check.unfinished.add(task.name)


def _check_task(check: Check, task: Task, entry: Entry, rows: pa.Table, fields: dict[str, Field], part: str) -> None:
    numbers, count = rows["row"].to_pylist(), task.size
    if _is_of_fewer_rows(check.cache, task, entry):
        check.unfinished.add(task.name)
        count = entry.rows
    elif entry.fingerprint != task.fingerprint:
        check.found(task.name, part, "was made from other inputs or settings")
        return
    if numbers != list(range(task.inputs["start"], task.inputs["start"] + count)):
        check.found(task.name, part, "does not list the rows of its shard")
    elif [file.name for file in entry.files] != [task.inputs["file"]]:
        check.found(task.name, part, "does not name the file of its shard")
    else:
        content = _check_file(check, task.name, entry.files[0])
        if content is not None and task.inputs["field"] in fields:
            _check_rows(check, task, fields[task.inputs["field"]], content, rows["checksum"].to_pylist())


def _is_of_fewer_rows(cache: Cache, task: Task, entry: Entry) -> bool:
    """As the function of this name, of the catalog that is stored: of the few tasks that had fewer rows."""
    return entry.rows < task.size and is_of_fewer_rows(cache.layout, cache.read_catalog(), task, entry)


def _check_file(check: Check, task: str, file: WrittenFile) -> bytes | None:
    """The content of a file that exists in full length, whether or not its hash is right."""
    reason, content = examine(check.cache.storage, file)
    if reason:
        check.found(task, file.name, reason)
    return content


def _check_rows(check: Check, task: Task, stored: Field, content: bytes, checksums: Sequence[int]) -> None:
    check.rows_of[task.name] = len(checksums)
    for place, reason in broken_rows(stored, content, checksums):
        row = None if place is None else task.inputs["start"] + place
        check.found(task.name, task.inputs["file"], reason, row)
