"""Is the cache what was written? And if not: which rows are not, and making them again."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa

from lcm_distill.config import Config
from lcm_distill.data import catalog as catalogs
from lcm_distill.data.cache import Field
from lcm_distill.data.catalog import Catalog, read_catalog
from lcm_distill.data.reader import FieldReader
from lcm_distill.data.sources import open_source
from lcm_distill.errors import DataError
from lcm_distill.pipeline.atomic import file_sha256
from lcm_distill.pipeline.executor import run_serially
from lcm_distill.pipeline.manifest import OK
from lcm_distill.pipeline.parts import Entry, FileRecord, read_entries, read_rows
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress, Task
from lcm_distill.stages.cache import (
    CATALOG_TASK,
    cache_fingerprint,
    commit_catalog,
    latents_field,
    number_annotations,
    open_manifest,
    plan,
    source_root,
    stored_text_field,
)
from lcm_distill.stages.encoding import Encoding

ROWS_AT_ONCE = 256


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
class Verification:
    """One look at a cache.

    Attributes:
        damage: what `check` found, and after `repair` what is still broken.
        rows: rows whose bytes were compared.
        pending: tasks that nothing was written of yet; that is no damage.
        repaired: names of the tasks that `repair` did again.
    """

    config: Config
    run: RunFolder
    damage: list[Damage] = field(default_factory=list[Damage])
    rows: int = 0
    pending: int = 0
    repaired: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.run.require(self.run.cache / "manifest", f"run `lcm precompute` into {self.run.root} first")
        self.manifest = open_manifest(self.run)

    def result(self) -> dict[str, Any]:
        """What was found, for a table or for JSON."""
        return {
            "sound": not self.damage,
            "rows": self.rows,
            "pending": self.pending,
            "repaired": self.repaired,
            "damage": [asdict(damage) for damage in self.damage],
        }

    def raise_if_broken(self) -> None:
        """Raises DataError: there is damage; one line with the remedy."""
        if self.damage:
            remedy = "put the source back as it was" if self.repaired else "`lcm verify --repair` encodes it again"
            raise DataError(f"{self.run.cache} is damaged in {len(self.damage)} places: {remedy}")

    def check(self) -> Iterator[Progress]:
        """Compare catalog, manifest and every committed shard with what was recorded when they were written."""
        self.damage, self.rows, self.pending = [], 0, 0
        self._check_catalog()
        yield from self._check_tasks(self._plan())

    def repair(self) -> Iterator[Progress]:
        """Encode the broken shards again and look at them once more.

        Raises:
            DataError: the source no longer holds what the cache was made from; nothing was changed.
        """
        if any(damage.task == CATALOG_TASK for damage in self.damage):
            self._repair_catalog()
            yield from self.check()
        names = {damage.task for damage in self.damage}
        broken = [task for task in self._plan() if task.name in names]
        self._require_source(broken)
        self._remove_damaged_files()
        self.manifest.drop(task.name for task in broken)
        if not broken:
            yield from self.check()
            return
        rows, done = sum(task.inputs["stop"] - task.inputs["start"] for task in broken), 0
        executor = Encoding(self.config, self.run, read_catalog(self.run.cache))
        for task, _ in run_serially(broken, self.manifest, executor.execute):
            done += task.inputs["stop"] - task.inputs["start"]
            self.repaired.append(task.name)
            yield Progress("encode again", done, rows, "rows")
        self.damage = []
        yield from self._check_tasks(broken, "verify again")

    def _plan(self) -> list[Task]:
        """The tasks of the cache; none while the catalog is broken, for it decides them."""
        if any(damage.task == CATALOG_TASK for damage in self.damage):
            return []
        return plan(self.config, self.run, read_catalog(self.run.cache))

    def _check_catalog(self) -> None:
        part = self.manifest.part(CATALOG_TASK)
        try:
            entry = self._entry_of_catalog()
        except DataError:
            self._found(CATALOG_TASK, part, "the manifest part is damaged")
            return
        if entry is None:
            self._found(CATALOG_TASK, part, "the manifest part is missing")
        elif entry.fingerprint != cache_fingerprint(self.config):
            self._found(CATALOG_TASK, part, "was made with other settings")
        else:
            wanted = {catalogs.samples_path(self.run.cache), catalogs.captions_path(self.run.cache)}
            unnamed = wanted - {self.run.cache / file.name for file in entry.files}
            for path in sorted(unnamed):
                self._found(CATALOG_TASK, path, "its hash was not recorded")
            self._check_files(entry)

    def _entry_of_catalog(self) -> Entry | None:
        """From its own part, or from a merged file; damage of other parts is found later.

        Raises:
            DataError: the file that holds it is damaged.
        """
        part = self.manifest.part(CATALOG_TASK)
        if part.is_file():
            list(read_rows(part, self.manifest.schema))
            return read_entries(part)[0]
        for path in self.manifest.merged_files():
            for entry in _readable(path):
                if entry.task == CATALOG_TASK:
                    list(read_rows(path, self.manifest.schema))
                    return entry
        return None

    def _check_tasks(self, tasks: Sequence[Task], label: str = "verify") -> Iterator[Progress]:
        by_name, seen = {task.name: task for task in tasks}, set[str]()
        fields = self._fields(tasks)
        yield Progress(label, 0, len(tasks), "shards")
        for path in (*self.manifest.merged_files(), *self.manifest.loose_parts()):
            for entry, rows in self._rows_of(path, by_name):
                if entry.task in seen:
                    self._found(entry.task, path, "the task is in another file of the manifest as well")
                elif entry.task in by_name:
                    seen.add(entry.task)
                    self._check_task(by_name[entry.task], entry, rows, fields, path)
                    yield Progress(label, len(seen), len(tasks), "shards", {"broken": len(self.damage)})
        for task in tasks:
            if task.name not in seen:
                self._check_absent(task)
        yield Progress(label, len(tasks), len(tasks), "shards", {"broken": len(self.damage)})

    def _rows_of(self, path: Path, tasks: dict[str, Task]) -> Iterator[tuple[Entry, pa.Table]]:
        if path == self.manifest.part(CATALOG_TASK):
            return  # looked at already
        try:
            yield from read_rows(path, self.manifest.schema)
        except DataError:
            self._found(path.stem if path.stem in tasks else None, path, "the manifest part is damaged")

    def _fields(self, tasks: Sequence[Task]) -> dict[str, FieldReader]:
        """Readers by kind of task; a field whose metadata is broken has none."""
        if not tasks:
            return {}
        catalog, readers = read_catalog(self.run.cache), {}
        for kind in dict.fromkeys(task.inputs["kind"] for task in tasks):
            path = self.run.cache / self._field_name(kind) / "zarr.json"
            if not path.is_file() and not self._shards_of(kind, tasks):
                continue
            try:
                stored = self._field(kind, catalog)
                if json.loads(path.read_bytes())["shape"] != [stored.rows, *stored.shape]:
                    raise ValueError
            except (OSError, ValueError, KeyError, IndexError, TypeError):
                self._found(f"{kind}-00000", path, "is missing or does not describe the field")
            else:
                readers[kind] = FieldReader(self.run.cache, stored)
        return readers

    def _field(self, kind: str, catalog: Catalog) -> Field:
        if kind == "captions":
            return stored_text_field(self.config, self.run, catalog)
        return latents_field(self.config, len(catalog.samples))

    def _field_name(self, kind: str) -> str:
        return "text" if kind == "captions" else latents_field(self.config, 1).name

    def _shard_path(self, task: Task) -> Path:
        dimensions = 2 if task.inputs["kind"] == "captions" else 3
        shape = (1,) * dimensions
        named = Field(self._field_name(task.inputs["kind"]), 1, shape, 1)
        return named.shard_path(self.run.cache, task.inputs["shard"])

    def _shards_of(self, kind: str, tasks: Sequence[Task]) -> bool:
        return any(self._shard_path(task).exists() for task in tasks if task.inputs["kind"] == kind)

    def _check_absent(self, task: Task) -> None:
        """A shard without a part was interrupted or lost its part; without either it was not begun."""
        if any(damage.task == task.name for damage in self.damage):
            return
        if self._shard_path(task).exists():
            self._found(task.name, self.manifest.part(task.name), "the manifest part is missing")
        else:
            self.pending += 1

    def _check_task(self, task: Task, entry: Entry, rows: pa.Table, fields: dict[str, FieldReader], part: Path) -> None:
        shard = self._shard_path(task)
        numbers = rows["row"].to_pylist()
        if entry.fingerprint != task.fingerprint:
            self._found(task.name, part, "was made from other inputs or settings")
        elif numbers != list(range(task.inputs["start"], task.inputs["stop"])):
            self._found(task.name, part, "does not list the rows of its shard")
        elif [file.name for file in entry.files] != [str(shard.relative_to(self.run.cache))]:
            self._found(task.name, part, "does not name the file of its shard")
        else:
            readable = self._check_files(entry)
            if readable and task.inputs["kind"] in fields:
                self._check_rows(task, shard, fields[task.inputs["kind"]], rows["checksum"].to_pylist())

    def _check_files(self, entry: Entry) -> bool:
        """Whether all files are there and whole, if perhaps with other bytes."""
        readable = [self._check_file(entry.task, file) for file in entry.files]
        return all(readable)

    def _check_file(self, task: str, file: FileRecord) -> bool:
        path = self.run.cache / file.name
        if not path.is_file():
            self._found(task, path, "the file is missing")
        elif path.stat().st_size != file.size:
            self._found(task, path, f"has {path.stat().st_size:,} bytes, {file.size:,} were written")
        else:
            if file_sha256(path) != file.sha256:
                self._found(task, path, "SHA-256 is not the one recorded")
            return True
        return False

    def _check_rows(self, task: Task, path: Path, reader: FieldReader, checksums: Sequence[int]) -> None:
        start, stop = task.inputs["start"], task.inputs["stop"]
        refused: list[int] = []
        for first in range(start, stop, ROWS_AT_ONCE):
            numbers = range(first, min(first + ROWS_AT_ONCE, stop))
            for number, content in zip(numbers, self._read(reader, numbers), strict=True):
                self.rows += 1
                if content is None:
                    refused.append(number)
                elif google_crc32c.value(content) != checksums[number - start]:
                    self._found(task.name, path, "does not match the manifest's checksum", number)
        if len(refused) == stop - start > 1:
            self._found(task.name, path, "no row can be read: the shard's index is damaged")
            return
        for number in refused:
            self._found(task.name, path, "does not match the CRC-32C behind it", number)

    def _read(self, reader: FieldReader, numbers: Sequence[int]) -> list[bytes | None]:
        """Bytes of each row, None for those that the reader refuses."""
        try:
            return [row.tobytes() for row in reader[np.array(numbers)]]
        except DataError:
            if len(numbers) == 1:
                return [None]
        return [self._read(reader, [number])[0] for number in numbers]

    def _repair_catalog(self) -> None:
        """Number the source again; it must give the very tasks that the cache holds."""
        catalog, bad = number_annotations(self.config, self.run)
        committed = {entry.task: entry for path in self._parts() for entry in _readable(path)}
        for task in plan(self.config, self.run, catalog):
            if task.name in committed and committed[task.name].fingerprint != task.fingerprint:
                raise DataError(
                    f"{source_root(self.config, self.run)} is not what {self.run.cache} was made from: "
                    "put it back as it was, or start another --run"
                )
        self._remove_damaged_files()
        self.manifest.drop([CATALOG_TASK])
        commit_catalog(self.config, self.run, catalog, bad)
        self.repaired.append(CATALOG_TASK)

    def _require_source(self, tasks: Sequence[Task]) -> None:
        """A picture that was encoded once must be there still: encoding its shard without it would lose it."""
        names = {task.name for task in tasks if task.inputs["kind"] == "images"}
        if not names:
            return
        known, gone = set[str](), list[str]()
        data_set = open_source(self.config.data, source_root(self.config, self.run))

        def is_there(path: str) -> bool:
            return data_set.holder(path).is_file()

        for path in self._parts():
            for entry, rows in self._readable_rows(path, names):
                known.add(entry.task)
                pairs = zip(rows["source"].to_pylist(), rows["status"].to_pylist(), strict=True)
                gone += [source for source, status in pairs if status == OK and not is_there(source)]
        samples = read_catalog(self.run.cache).samples["path"]
        for task in tasks:
            if task.name in names - known:  # nothing says which of them could be used
                sources = samples[task.inputs["start"] : task.inputs["stop"]].to_pylist()
                gone += sources if not any(map(is_there, sources)) else []
        if gone:
            raise DataError(
                f"{source_root(self.config, self.run)} lacks {len(gone)} pictures of broken shards, such as {gone[0]}: "
                "put them back and repair again"
            )

    def _readable_rows(self, path: Path, names: set[str]) -> list[tuple[Entry, pa.Table]]:
        try:
            return list(read_rows(path, self.manifest.schema, names))
        except DataError:
            return []

    def _remove_damaged_files(self) -> None:
        """Parts and metadata that cannot be read stand in the way of writing them again."""
        for path in self._parts():
            try:
                list(read_rows(path, self.manifest.schema))
            except DataError:
                path.unlink()
        for damage in self.damage:
            if Path(damage.path).name == "zarr.json":
                (self.run.cache / damage.path).unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        return [*self.manifest.merged_files(), *self.manifest.loose_parts()]

    def _found(self, task: str | None, path: Path, reason: str, row: int | None = None) -> None:
        self.damage.append(Damage(task, str(path.relative_to(self.run.cache)), row, reason))


def _readable(path: Path) -> list[Entry]:
    try:
        return read_entries(path)
    except DataError:
        return []
