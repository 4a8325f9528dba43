# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""The manifest: one Parquet part a task, written last. The part is the commit.

Anyone may read the folder with DuckDB while workers add to it:
`SELECT status, error, count(*) FROM read_parquet('.../manifest/*.parquet', union_by_name=true) GROUP BY ALL`.
`pipeline.compaction` merges many parts into few files; a task is in one file of the folder at any moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from lcm_distill.core.errors import DataError
from lcm_distill.pipeline.lookahead import map_ahead
from lcm_distill.pipeline.parts import Entry, encode_part, read_entries, read_rows, written_files
from lcm_distill.pipeline.storage import Storage, WrittenFile
from lcm_distill.pipeline.task import Task

OK = "ok"
QUARANTINED = "quarantined"
FOLDER = "manifest"
AHEAD = 64
"""Parts that are read ahead."""
MERGED = "merged."
"""Prefix of files that hold many tasks. A task's name has no dot, so none is mistaken for another."""


class Manifest:
    """The parts in the folder `manifest` of a storage, which also holds the files that tasks write.

    Args:
        storage: its folder `manifest` holds `<task name>.parquet`, and `merged.<token>.parquet` once compacted.
        schema: columns that the tasks of this manifest fill, one row a sample. `task`, `fingerprint`, `file`,
            `file_bytes` and `file_sha256` come on top.
    """

    def __init__(self, storage: Storage, schema: pa.Schema) -> None:
        self.storage = storage
        self.schema = pa.schema(
            [("task", pa.string()), ("fingerprint", pa.string()), *schema,
             ("file", pa.string()), ("file_bytes", pa.int64()), ("file_sha256", pa.string())]
        )  # fmt: skip

    def commit(self, task: Task, rows: Sequence[Mapping[str, Any]], file: WrittenFile | None) -> Entry:
        """Record that `task`, which has no commit, is done: `rows` are its samples, `file` what it wrote.

        A row that concerns another file of the task says so itself, by what `file_columns` gives.

        Returns:
            What the footer says of the task.
        """
        shared = {"task": task.name, "fingerprint": task.fingerprint, **(file_columns(file) if file else {})}
        table = pa.Table.from_pylist([{**shared, **row} for row in rows], schema=self.schema)
        quarantined = sum(row.get("status") == QUARANTINED for row in rows)
        entry = Entry(task.name, task.fingerprint, len(rows), quarantined, written_files(table))
        self.storage.put(part_name(task.name), [encode_part(table, [entry])])
        return entry

    def is_done(self, task: Task) -> bool:
        """Whether this very task is committed and its files still have the sizes they were written with.

        Raises:
            DataError: a part that may be the task's is damaged.
        """
        return bool(self.done([task]))

    def done(self, tasks: Sequence[Task]) -> dict[str, Entry]:
        """Footer entries of those of `tasks` for which `is_done` holds, by name, in one pass over footers.

        Raises:
            DataError: a part is damaged.
        """
        entries = self.entries([task.name for task in tasks])
        sizes = self.storage.sizes({file.name for entry in entries.values() for file in entry.files})
        return {
            task.name: entry
            for task in tasks
            if (entry := entries.get(task.name))
            and entry.fingerprint == task.fingerprint
            and all(sizes.get(file.name) == file.size for file in entry.files)
        }

    def entries(self, names: Iterable[str] | None = None) -> dict[str, Entry]:
        """Footer entries of all tasks, or of those of the given names that have one.

        Raises:
            DataError: a part is damaged.
        """
        files = self._files_of(names)
        found = map_ahead(lambda file: read_entries(self.storage, file[0]), files, self.storage.readers, AHEAD)
        return {
            entry.task: entry
            for (_, wanted), entries in zip(files, found, strict=True)
            for entry in entries
            if wanted is None or entry.task in wanted
        }

    def merged_entries(self) -> dict[str, Entry]:
        """Footer entries of the tasks that lie in merged files."""
        return {entry.task: entry for file in self.merged_files() for entry in read_entries(self.storage, file)}

    def read(self, tasks: Sequence[Task] | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, or those of the given tasks, in order of task name; all columns, or the given ones.

        Raises:
            DataError: a part is damaged, or one of `tasks` has none.
        """
        names = None if tasks is None else {task.name for task in tasks}
        found = map_ahead(
            lambda file: list(read_rows(self.storage, file[0], self.schema, file[1], columns)),
            self._files_of(names), self.storage.readers, AHEAD,
        )  # fmt: skip
        tables = {entry.task: rows for file in found for entry, rows in file}
        missing = sorted((names or set()) - tables.keys())
        if missing:
            raise DataError(f"{self.storage.locate(FOLDER)} has no part of {missing[0]}: the same command makes it")
        parts = [tables[name] for name in sorted(tables)]
        return pa.concat_tables(parts or [self.schema.empty_table().select(columns or self.schema.names)])

    def task_names(self) -> list[str]:
        """Names of the tasks that have a part."""
        return sorted({*self.merged_entries(), *map(task_of_part, self.loose_parts())})

    def drop(self, names: Iterable[str]) -> None:
        """Take back the commits of the given tasks, as far as there are any; their files stay."""
        dropped = set(names)
        for name in dropped & set(map(task_of_part, self.loose_parts())):
            self.storage.remove(part_name(name))
        for file in self.merged_files():
            self._drop_merged(file, dropped)

    def loose_parts(self) -> list[str]:
        """Parts of one task, in order of name."""
        return [file for file in self._all_files() if not PurePosixPath(file).name.startswith(MERGED)]

    def merged_files(self) -> list[str]:
        """Files of many tasks, in order of name."""
        return [file for file in self._all_files() if PurePosixPath(file).name.startswith(MERGED)]

    def _all_files(self) -> list[str]:
        return [file for file in self.storage.listing(FOLDER) if file.endswith(".parquet")]

    def _files_of(self, names: Iterable[str] | None) -> list[tuple[str, set[str] | None]]:
        """Files to look into for the given tasks, and which tasks to look for in each; None means all."""
        if names is None:
            return [(file, None) for file in (*self.merged_files(), *self.loose_parts())]
        parts = {part_name(name): name for name in names}
        own = self.storage.sizes(parts.keys())
        rest = {name for part, name in parts.items() if part not in own}
        merged = self.merged_files() if rest else []
        return [*((file, rest) for file in merged), *((part, {parts[part]}) for part in sorted(own))]

    def _drop_merged(self, file: str, names: set[str]) -> None:
        if names.isdisjoint(entry.task for entry in read_entries(self.storage, file)):
            return
        kept = [(entry, rows) for entry, rows in read_rows(self.storage, file, self.schema) if entry.task not in names]
        if kept:
            table, entries = pa.concat_tables([rows for _, rows in kept]), [entry for entry, _ in kept]
            self.storage.put(file, [encode_part(table, entries)])
        else:
            self.storage.remove(file)


def part_name(task: str) -> str:
    """The file of a task's own part, which it has until it is merged."""
    return f"{FOLDER}/{task}.parquet"


def task_of_part(file: str) -> str:
    """The task that a loose part is of."""
    return PurePosixPath(file).stem


def file_columns(file: WrittenFile) -> dict[str, Any]:
    """The columns that name a file, its size and its hash."""
    return {"file": file.name, "file_bytes": file.size, "file_sha256": file.sha256}
