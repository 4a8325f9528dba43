# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""The manifest: one Parquet part a task, written last. The part is the commit.

Anyone may read the folder with DuckDB while workers add to it:
`SELECT status, error, count(*) FROM read_parquet('.../manifest/*.parquet', union_by_name=true) GROUP BY ALL`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.pipeline.atomic import WrittenFile, commit_file
from lcm_distill.pipeline.task import Task

OK = "ok"
QUARANTINED = "quarantined"


class Manifest:
    """The parts in one folder.

    Args:
        folder: holds `<task name>.parquet`.
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
        """Record that `task` is done: `rows` are its samples, `file` what it wrote."""
        shared = {
            "task": task.name,
            "fingerprint": task.fingerprint,
            "file": str(file.path.relative_to(self.root)) if file else None,
            "file_bytes": file.size if file else None,
            "file_sha256": file.sha256 if file else None,
        }
        # The fingerprint is also in the file's metadata, where it survives a task without a single row.
        schema = self.schema.with_metadata({"fingerprint": task.fingerprint})
        table = pa.Table.from_pylist([{**row, **shared} for row in rows], schema=schema)
        commit_file(self._part(task.name), lambda path: pq.write_table(table, path))

    def is_done(self, task: Task) -> bool:
        """Whether a part of this very task is there and its file still has the size it was written with."""
        part = self._part(task.name)
        if not part.is_file():
            return False
        schema = pq.read_schema(part)
        if (schema.metadata or {}).get(b"fingerprint") != task.fingerprint.encode():
            return False
        files = pq.read_table(part, columns=["file", "file_bytes"]).slice(0, 1).to_pylist()
        return all(
            (self.root / row["file"]).is_file() and (self.root / row["file"]).stat().st_size == row["file_bytes"]
            for row in files
            if row["file"] is not None
        )

    def read(self, tasks: Sequence[Task] | None = None) -> pa.Table:
        """All rows, or those of the given tasks, in order of task name."""
        names = sorted(task.name for task in tasks) if tasks is not None else self.task_names()
        parts = [pq.read_table(self._part(name), schema=self.schema) for name in names]
        return pa.concat_tables(parts) if parts else self.schema.empty_table()

    def task_names(self) -> list[str]:
        """Names of the tasks that have a part."""
        return sorted(part.stem for part in self.folder.glob("[!.]*.parquet"))

    def _part(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"
