# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""The manifest: one Parquet part a task, written last. The part is the commit.

Anyone may read the folder with DuckDB while workers add to it:
`SELECT status, error, count(*) FROM read_parquet('.../manifest/*.parquet', union_by_name=true) GROUP BY ALL`.
`pipeline.compaction` merges many parts into few files; a task is in one file of the folder at any moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcm_distill.errors import DataError
from lcm_distill.pipeline.atomic import WrittenFile, commit_file
from lcm_distill.pipeline.parts import Entry, file_records, read_entries, read_rows, write_part
from lcm_distill.pipeline.task import Task

OK = "ok"
QUARANTINED = "quarantined"
MERGED = "merged."
"""Prefix of files that hold many tasks. A task's name has no dot, so none is mistaken for another."""


class Manifest:
    """The parts in one folder.

    Args:
        folder: holds `<task name>.parquet`, and `merged.<token>.parquet` once compacted.
        schema: columns that the tasks of this manifest fill, one row a sample. `task`, `fingerprint`, `file`,
            `file_bytes` and `file_sha256` come on top.
        root: what file names in the manifest are relative to.
    """

    def __init__(self, folder: Path, schema: pa.Schema, root: Path) -> None:
        self.folder, self.root = folder, root
        self.schema = pa.schema(
            [("task", pa.string()), ("fingerprint", pa.string()), *schema,
             ("file", pa.string()), ("file_bytes", pa.int64()), ("file_sha256", pa.string())]
        )  # fmt: skip

    def commit(self, task: Task, rows: Sequence[Mapping[str, Any]], file: WrittenFile | None) -> None:
        """Record that `task` is done: `rows` are its samples, `file` what it wrote.

        A row that concerns another file of the task says so itself, by what `file_columns` gives.
        """
        shared = {"task": task.name, "fingerprint": task.fingerprint, **(self.file_columns(file) if file else {})}
        table = pa.Table.from_pylist([{**shared, **row} for row in rows], schema=self.schema)
        entry = Entry(task.name, task.fingerprint, len(rows), file_records(table))
        # Out of the merged file first: a crash in between has the task done again and never shows it twice.
        self._drop_merged({task.name})
        commit_file(self.part(task.name), lambda path: write_part(path, table, [entry]))

    def file_columns(self, file: WrittenFile) -> dict[str, Any]:
        """The columns that name a file, its size and its hash."""
        return {
            "file": str(file.path.relative_to(self.root)),
            "file_bytes": file.size,
            "file_sha256": file.sha256,
        }

    def is_done(self, task: Task) -> bool:
        """Whether this very task is committed and its files still have the sizes they were written with.

        Raises:
            DataError: a part that may be the task's is damaged.
        """
        return bool(self.done([task]))

    def done(self, tasks: Sequence[Task]) -> set[str]:
        """Names of those of `tasks` for which `is_done` holds, in one pass over footers.

        Raises:
            DataError: a part is damaged.
        """
        entries = self.entries([task.name for task in tasks])
        return {task.name for task in tasks if task.name in entries and self._stands(entries[task.name], task)}

    def entries(self, names: Iterable[str] | None = None) -> dict[str, Entry]:
        """Footer entries of all tasks, or of those of the given names that have one.

        Raises:
            DataError: a part is damaged.
        """
        return {
            entry.task: entry
            for path, wanted in self._files_of(names)
            for entry in read_entries(path)
            if wanted is None or entry.task in wanted
        }

    def read(self, tasks: Sequence[Task] | None = None) -> pa.Table:
        """All rows, or those of the given tasks, in order of task name.

        Raises:
            DataError: a part is damaged, or one of `tasks` has none.
        """
        names = None if tasks is None else {task.name for task in tasks}
        tables = {
            entry.task: rows
            for path, wanted in self._files_of(names)
            for entry, rows in read_rows(path, self.schema, wanted)
        }
        missing = sorted((names or set()) - tables.keys())
        if missing:
            raise DataError(f"{self.folder} has no part of {missing[0]}: the same command makes it")
        parts = [tables[name] for name in sorted(tables)]
        return pa.concat_tables(parts) if parts else self.schema.empty_table()

    def task_names(self) -> list[str]:
        """Names of the tasks that have a part."""
        merged = [entry.task for path in self.merged_files() for entry in read_entries(path)]
        return sorted({*merged, *(path.stem for path in self.loose_parts())})

    def drop(self, names: Iterable[str]) -> None:
        """Take back the commits of the given tasks, as far as there are any; their files stay."""
        dropped = set(names)
        for name in dropped:
            self.part(name).unlink(missing_ok=True)
        self._drop_merged(dropped)

    def part(self, name: str) -> Path:
        """Where a task's own part is, unless it was merged."""
        return self.folder / f"{name}.parquet"

    def loose_parts(self) -> list[Path]:
        """Parts of one task, in order of name."""
        return [path for path in self._all_files() if not path.name.startswith(MERGED)]

    def merged_files(self) -> list[Path]:
        """Files of many tasks, in order of name."""
        return [path for path in self._all_files() if path.name.startswith(MERGED)]

    def _all_files(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.parquet"))

    def _files_of(self, names: Iterable[str] | None) -> list[tuple[Path, set[str] | None]]:
        """Files to look into for the given tasks, and which tasks to look for in each; None means all."""
        if names is None:
            return [(path, None) for path in (*self.merged_files(), *self.loose_parts())]
        wanted = set(names)
        loose = {path.stem: path for path in self.loose_parts()} if len(wanted) > 1 else self._loose_one(wanted)
        rest = wanted - loose.keys()
        files: list[tuple[Path, set[str] | None]] = [(path, rest) for path in self.merged_files() if rest]
        return files + [(loose[name], {name}) for name in sorted(wanted & loose.keys())]

    def _loose_one(self, names: set[str]) -> dict[str, Path]:
        """The loose parts among few tasks, without listing the folder."""
        return {name: self.part(name) for name in names if self.part(name).is_file()}

    def _stands(self, entry: Entry, task: Task) -> bool:
        paths = [(self.root / file.name, file.size) for file in entry.files]
        return entry.fingerprint == task.fingerprint and all(
            path.is_file() and path.stat().st_size == size for path, size in paths
        )

    def _drop_merged(self, names: set[str]) -> None:
        for path in self.merged_files():
            if names.isdisjoint(entry.task for entry in read_entries(path)):
                continue
            kept = [(entry, rows) for entry, rows in read_rows(path, self.schema) if entry.task not in names]
            if kept:
                table, entries = pa.concat_tables([rows for _, rows in kept]), [entry for entry, _ in kept]
                commit_file(path, partial(write_part, table=table, entries=entries))
            else:
                path.unlink()
