# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""The manifest: one Parquet part per task, written last. The part is the commit.

The folder can be queried with DuckDB while workers add to it:
`SELECT status, error, count(*) FROM read_parquet('.../manifest/*.parquet', union_by_name=true) GROUP BY ALL`.
`pipeline.compaction` merges many parts into few files; a task is in exactly one file of the folder at any moment.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from lcm_distill.core.errors import DataError
from lcm_distill.pipeline.manifest_parts import REMEDY, Entry, encode_part, read_entries, read_rows, written_files
from lcm_distill.pipeline.prefetch import prefetch_map
from lcm_distill.pipeline.storage import Storage, WrittenFile
from lcm_distill.pipeline.task import Task

OK = "ok"
QUARANTINED = "quarantined"
FOLDER = "manifest"
AHEAD = 64
"""Number of parts that are prefetched."""
MERGED = "merged."
"""Prefix of files that hold many tasks. The name of a task has no dot, so no part has this prefix."""


class Manifest:
    """The parts in the folder `manifest` of a storage, which also holds the files that tasks write.

    Args:
        storage: its folder `manifest` holds `<task name>.parquet`, and `merged.<token>.parquet` once compacted.
        schema: columns of the tasks' rows, one row per sample. `task`, `fingerprint`, `file`, `file_bytes` and
            `file_sha256` are added.
        remedy: what to do about a damaged part, for messages.
    """

    def __init__(self, storage: Storage, schema: pa.Schema, remedy: str = REMEDY) -> None:
        self.storage, self.remedy = storage, remedy
        self.schema = pa.schema(
            [("task", pa.string()), ("fingerprint", pa.string()), *schema,
             ("file", pa.string()), ("file_bytes", pa.int64()), ("file_sha256", pa.string())]
        )  # fmt: skip

    def commit(self, task: Task, rows: Sequence[Mapping[str, Any]], file: WrittenFile | None) -> Entry:
        """Record that `task`, which has no commit, is done.

        Args:
            rows: values by column, one row per sample; columns without a value are null. A row about a file other than
                `file` has the values of `file_columns` of that file.
            file: the file that the task wrote, if it is one.

        Returns:
            The entry of the task in the footer.

        Raises:
            ValueError: a row has a key that is not a column; nothing was written.
            TypeError: a value does not have the type of its column; nothing was written.
        """
        self._refuse_unknown_columns(task, rows)
        shared = {"task": task.name, "fingerprint": task.fingerprint, **(file_columns(file) if file else {})}
        table = pa.Table.from_pylist([{**shared, **row} for row in rows], schema=self.schema)
        quarantined = sum(row.get("status") == QUARANTINED for row in rows)
        entry = Entry(task.name, task.fingerprint, len(rows), quarantined, written_files(table))
        self.storage.put(part_name(task.name), [encode_part(table, [entry])])
        return entry

    def _refuse_unknown_columns(self, task: Task, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = set(self.schema.names)
        for row in rows:
            if unknown := sorted(row.keys() - columns):
                raise ValueError(
                    f"a manifest row of {task.name} has the key {unknown[0]!r}, which is not one of the columns "
                    f"{', '.join(self.schema.names)}"
                )

    def is_done(self, task: Task) -> bool:
        """Whether the task is committed with this fingerprint and its files have the sizes they were written with.

        Raises:
            DataError: a part that may contain the task is damaged.
        """
        return bool(self.done([task]))

    def done(self, tasks: Sequence[Task]) -> dict[str, Entry]:
        """Footer entries of those of `tasks` for which `is_done` holds, by name. Reads each footer once.

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
        """Footer entries of all tasks, or of those with the given names, by name.

        Raises:
            DataError: a part is damaged.
        """
        files = self._files_of(names)
        found = prefetch_map(lambda file: self._entries(file[0]), files, self.storage.readers, AHEAD)
        return {
            entry.task: entry
            for (_, wanted), entries in zip(files, found, strict=True)
            for entry in entries
            if wanted is None or entry.task in wanted
        }

    def merged_entries(self) -> dict[str, Entry]:
        """Footer entries of the tasks in merged files, by name."""
        return {entry.task: entry for file in self.merged_files() for entry in self._entries(file)}

    def read(self, tasks: Sequence[Task] | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, or those of the given tasks, in order of task name; all columns, or the given ones.

        Raises:
            DataError: a part is damaged, or one of `tasks` is not committed.
        """
        names = None if tasks is None else {task.name for task in tasks}
        found = prefetch_map(
            lambda file: list(self.rows(file[0], file[1], columns)),
            self._files_of(names), self.storage.readers, AHEAD,
        )  # fmt: skip
        tables = {entry.task: rows for file in found for entry, rows in file}
        missing = sorted((names or set()) - tables.keys())
        if missing:
            raise DataError(f"{self.storage.locate(FOLDER)} has no part of {missing[0]}: the same command makes it")
        parts = [tables[name] for name in sorted(tables)]
        return pa.concat_tables(parts or [self.schema.empty_table().select(columns or self.schema.names)])

    def rows(
        self, file: str, tasks: Container[str] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[Entry, pa.Table]]:
        """The tasks of one of the manifest's files, and their rows; see `parts.read_rows`.

        Raises:
            DataError: the file is damaged.
        """
        return read_rows(self.storage, file, self.schema, tasks, columns, self.remedy)

    def files(self) -> list[str]:
        """Every file of the manifest, merged files first."""
        return [*self.merged_files(), *self.loose_parts()]

    def task_names(self) -> list[str]:
        """Names of the committed tasks, in order."""
        return sorted({*self.merged_entries(), *map(task_of_part, self.loose_parts())})

    def drop(self, names: Iterable[str]) -> None:
        """Revoke the commits of those of the tasks that have one; their files stay."""
        dropped = set(names)
        for name in dropped & set(map(task_of_part, self.loose_parts())):
            self.storage.remove(part_name(name))
        self.drop_merged(dropped)

    def drop_merged(self, names: Iterable[str]) -> None:
        """Revoke those of the commits that are in merged files, and not what the tasks have committed since."""
        dropped = set(names)
        for file in self.merged_files():
            self._drop_merged(file, dropped)

    def loose_parts(self) -> list[str]:
        """Files of one task each, in order of name."""
        return [file for file in self._all_files() if not PurePosixPath(file).name.startswith(MERGED)]

    def merged_files(self) -> list[str]:
        """Files of many tasks, in order of name."""
        return [file for file in self._all_files() if PurePosixPath(file).name.startswith(MERGED)]

    def _entries(self, file: str) -> list[Entry]:
        return read_entries(self.storage, file, self.remedy)

    def _all_files(self) -> list[str]:
        return [file for file in self.storage.listing(FOLDER) if file.endswith(".parquet")]

    def _files_of(self, names: Iterable[str] | None) -> list[tuple[str, set[str] | None]]:
        """Files that may contain the given tasks, and which tasks each may contain; None means all."""
        if names is None:
            return [(file, None) for file in self.files()]
        parts = {part_name(name): name for name in names}
        own = self.storage.sizes(parts.keys())
        rest = {name for part, name in parts.items() if part not in own}
        merged = self.merged_files() if rest else []
        return [*((file, rest) for file in merged), *((part, {parts[part]}) for part in sorted(own))]

    def _drop_merged(self, file: str, names: set[str]) -> None:
        if names.isdisjoint(entry.task for entry in self._entries(file)):
            return
        kept = [(entry, rows) for entry, rows in self.rows(file) if entry.task not in names]
        if kept:
            table, entries = pa.concat_tables([rows for _, rows in kept]), [entry for entry, _ in kept]
            self.storage.put(file, [encode_part(table, entries)])
        else:
            self.storage.remove(file)


def part_name(task: str) -> str:
    """The file of a task's own part, which exists until it is merged."""
    return f"{FOLDER}/{task}.parquet"


def task_of_part(file: str) -> str:
    """The task of a part that is not merged."""
    return PurePosixPath(file).stem


def file_columns(file: WrittenFile) -> dict[str, Any]:
    """Values of the columns for the name, size and hash of a file."""
    return {"file": file.name, "file_bytes": file.size, "file_sha256": file.sha256}
