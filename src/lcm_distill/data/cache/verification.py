"""Is a cache what was written? Catalog, manifest and shards against what was recorded when they were committed."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import pyarrow as pa

from lcm_distill.config import Config
from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.cache import (
    CATALOG_TASK,
    cache_fingerprint,
    open_manifest,
    plan,
    read_catalog,
    task_field,
)
from lcm_distill.data.cache.catalog import CAPTIONS_FILE, SAMPLES_FILE, Catalog
from lcm_distill.data.cache.format import Field, broken_rows
from lcm_distill.pipeline.manifest import Manifest, part_name, task_of_part
from lcm_distill.pipeline.parts import Entry, read_entries, read_rows
from lcm_distill.pipeline.storage import Storage, WrittenFile
from lcm_distill.pipeline.task import Progress, Task


@dataclass(frozen=True)
class Damage:
    """Something that is not what was written.

    Attributes:
        task: whose it is; None where a file of many tasks no longer says.
        path: the file, relative to the cache.
        row: the row of the field; None where it is the whole file.
        reason: what is wrong with it.
    """

    task: str | None
    path: str
    row: int | None
    reason: str


@dataclass
class Check:
    """One look at a cache.

    Attributes:
        damage: what was found.
        rows: rows whose bytes were compared.
        pending: tasks that nothing was written of yet; that is no damage.
    """

    config: Config
    cache: Storage
    damage: list[Damage] = field(default_factory=list[Damage])
    rows: int = 0
    pending: int = 0

    def everything(self) -> Iterator[Progress]:
        """Look at catalog and manifest, and at every shard unless the catalog is broken, for it decides them."""
        _check_catalog(self)
        yield from self.tasks([] if self.damage else plan(self.config, read_catalog(self.cache)))

    def tasks(self, tasks: Sequence[Task], label: str = "verify") -> Iterator[Progress]:
        """Look at the manifest and at the shards of the given tasks."""
        yield from _check_tasks(self, tasks, label)

    def found(self, task: str | None, path: str, reason: str, row: int | None = None) -> None:
        """Note something that is broken."""
        self.damage.append(Damage(task, path, row, reason))


def manifest_files(manifest: Manifest) -> list[str]:
    """Every file of a manifest, those of many tasks first."""
    return [*manifest.merged_files(), *manifest.loose_parts()]


def readable_entries(cache: Storage, file: str) -> list[Entry]:
    """The tasks that a manifest's file says it is of; none where it cannot be read."""
    try:
        return read_entries(cache, file)
    except DataError:
        return []


def _check_catalog(check: Check) -> None:
    part = part_name(CATALOG_TASK)
    try:
        entry = _entry_of_catalog(open_manifest(check.cache))
    except DataError:
        check.found(CATALOG_TASK, part, "the manifest part is damaged")
        return
    if entry is None:
        check.found(CATALOG_TASK, part, "the manifest part is missing")
    elif entry.fingerprint != cache_fingerprint(check.config):
        check.found(CATALOG_TASK, part, "was made with other settings")
    else:
        for name in sorted({CAPTIONS_FILE, SAMPLES_FILE} - {file.name for file in entry.files}):
            check.found(CATALOG_TASK, name, "its hash was not recorded")
        for file in entry.files:
            _check_file(check, CATALOG_TASK, file)


def _entry_of_catalog(manifest: Manifest) -> Entry | None:
    """From its own part, or from a merged file; damage of other parts is found later.

    Raises:
        DataError: the file that holds it is damaged.
    """
    files = [part_name(CATALOG_TASK)] if part_name(CATALOG_TASK) in manifest.loose_parts() else manifest.merged_files()
    for file in files:
        loose = file == part_name(CATALOG_TASK)
        entries = read_entries(manifest.storage, file) if loose else readable_entries(manifest.storage, file)
        for entry in entries:
            if entry.task == CATALOG_TASK:
                list(read_rows(manifest.storage, file, manifest.schema))
                return entry
    return None


def _check_tasks(check: Check, tasks: Sequence[Task], label: str) -> Iterator[Progress]:
    by_name, seen = {task.name: task for task in tasks}, set[str]()
    manifest = open_manifest(check.cache)
    fields = _check_fields(check, tasks)
    yield Progress(label, 0, len(tasks), "shards")
    for file in manifest_files(manifest):
        for entry, rows in _rows_of(check, manifest, file, by_name):
            if entry.task in seen:
                check.found(entry.task, file, "the task is in another file of the manifest as well")
            elif entry.task in by_name:
                seen.add(entry.task)
                _check_task(check, by_name[entry.task], entry, rows, fields, file)
                yield Progress(label, len(seen), len(tasks), "shards", {"broken": len(check.damage)})
    _check_absent(check, [task for task in tasks if task.name not in seen])
    yield Progress(label, len(tasks), len(tasks), "shards", {"broken": len(check.damage)})


def _rows_of(check: Check, manifest: Manifest, file: str, tasks: dict[str, Task]) -> Iterator[tuple[Entry, pa.Table]]:
    if file == part_name(CATALOG_TASK):
        return  # looked at already
    try:
        yield from read_rows(check.cache, file, manifest.schema)
    except DataError:
        task = task_of_part(file)
        check.found(task if task in tasks else None, file, "the manifest part is damaged")


def _check_fields(check: Check, tasks: Sequence[Task]) -> dict[str, Field]:
    """Fields by name; one whose metadata is broken is absent, and a field without shards has none yet."""
    fields: dict[str, Field] = {}
    if not tasks:
        return fields
    catalog = read_catalog(check.cache)
    for name, first in {task.inputs["field"]: task for task in reversed(tasks)}.items():
        metadata = f"{name}/zarr.json"
        if not check.cache.sizes([metadata]) and not check.cache.sizes(_shards_of(name, tasks)):
            continue
        try:
            fields[name] = _described_field(check, first, catalog)
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            check.found(first.name, metadata, "is missing or does not describe the field")
    return fields


def _described_field(check: Check, task: Task, catalog: Catalog) -> Field:
    """The field of a task, found to be what its metadata says.

    Raises:
        OSError, ValueError, KeyError, IndexError, TypeError: the metadata is missing or says something else.
    """
    stored = task_field(check.config, check.cache, task, catalog)
    if json.loads(check.cache.read(stored.metadata_name))["shape"] != [stored.rows, *stored.shape]:
        raise ValueError
    return stored


def _shards_of(field_name: str, tasks: Sequence[Task]) -> list[str]:
    return [task.inputs["file"] for task in tasks if task.inputs["field"] == field_name]


def _check_absent(check: Check, tasks: Sequence[Task]) -> None:
    """A shard without a part was interrupted or lost its part; without either it was not begun."""
    left = check.cache.sizes([task.inputs["file"] for task in tasks])
    for task in tasks:
        if any(damage.task == task.name for damage in check.damage):
            continue
        if task.inputs["file"] in left:
            check.found(task.name, part_name(task.name), "the manifest part is missing")
        else:
            check.pending += 1


def _check_task(check: Check, task: Task, entry: Entry, rows: pa.Table, fields: dict[str, Field], part: str) -> None:
    numbers = rows["row"].to_pylist()
    if entry.fingerprint != task.fingerprint:
        check.found(task.name, part, "was made from other inputs or settings")
    elif numbers != list(range(task.inputs["start"], task.inputs["stop"])):
        check.found(task.name, part, "does not list the rows of its shard")
    elif [file.name for file in entry.files] != [task.inputs["file"]]:
        check.found(task.name, part, "does not name the file of its shard")
    else:
        content = _check_file(check, task.name, entry.files[0])
        if content is not None and task.inputs["field"] in fields:
            _check_rows(check, task, fields[task.inputs["field"]], content, rows["checksum"].to_pylist())


def _check_file(check: Check, task: str, file: WrittenFile) -> bytes | None:
    """The content of a file that is there in full length, if perhaps with other bytes."""
    try:
        content = check.cache.read(file.name)
    except FileNotFoundError:
        check.found(task, file.name, "the file is missing")
        return None
    if len(content) != file.size:
        check.found(task, file.name, f"has {len(content):,} bytes, {file.size:,} were written")
        return None
    if sha256(content).hexdigest() != file.sha256:
        check.found(task, file.name, "SHA-256 is not the one recorded")
    return content


def _check_rows(check: Check, task: Task, stored: Field, content: bytes, checksums: Sequence[int]) -> None:
    check.rows += len(checksums)
    for place, reason in broken_rows(stored, content, checksums):
        row = None if place is None else task.inputs["start"] + place
        check.found(task.name, task.inputs["file"], reason, row)
