"""What a manifest of the full data set costs: which tasks are done, and the plain status query, in DuckDB.

make bench-manifest      # prints last: resume_seconds=... status_query_seconds=...
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

from lcm_distill.pipeline.compaction import compact
from lcm_distill.pipeline.manifest import OK, Manifest
from lcm_distill.pipeline.parts import Entry, FileRecord, write_part
from lcm_distill.pipeline.task import Task
from lcm_distill.stages.cache import SAMPLE_COLUMNS

PARTS, ROWS = 1_100, 4_096
FILE = FileRecord("shard", 3, "ab" * 32)
"""One small file stands for every shard: what is measured is the manifest."""


def timed(work: Callable[[], object]) -> tuple[object, float]:
    """What `work` returns, and its wall time."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def write_parts(manifest: Manifest, tasks: list[Task]) -> None:
    """A part a task, with rows as `precompute` writes them."""
    manifest.folder.mkdir()
    (manifest.root / FILE.name).write_bytes(b"abc")
    for number, task in enumerate(tasks):
        rows = range(number * ROWS, (number + 1) * ROWS)
        columns = {
            "sample_id": [f"{row:08x}-4a5b" for row in rows],
            "row": list(rows),
            "source": [f"data/train/imgs/{number:03d}/{row:08x}.jpg" for row in rows],
            "caption_row": list(rows),
            "checksum": [row * 2_654_435_761 % 2**32 for row in rows],
        }
        shared = {
            "task": task.name, "fingerprint": task.fingerprint, "kind": "image", "shard": number, "split": "train",
            "width": 1024, "height": 1024, "status": OK, "error": None,
            "file": FILE.name, "file_bytes": FILE.size, "file_sha256": FILE.sha256,
        }  # fmt: skip
        columns |= {name: [value] * ROWS for name, value in shared.items()}
        entry = Entry(task.name, task.fingerprint, ROWS, (FILE,))
        write_part(manifest.part(task.name), pa.table(columns, schema=manifest.schema), [entry])


def status_query(manifest: Manifest) -> list[tuple[object, ...]]:
    """Rows by status and reason, as anyone may ask."""
    files = f"read_parquet('{manifest.folder}/*.parquet', union_by_name = true)"
    return duckdb.sql(f"SELECT kind, status, error, count(*) FROM {files} GROUP BY ALL").fetchall()


def main() -> None:
    """Loose parts first, then the same compacted."""
    tasks = [Task(f"images-{number:05d}", f"{number:064x}") for number in range(PARTS)]
    with tempfile.TemporaryDirectory() as folder:
        manifest = Manifest(Path(folder) / "manifest", SAMPLE_COLUMNS, Path(folder))
        write_parts(manifest, tasks)
        done, resume = timed(lambda: manifest.done(tasks))
        answer, loose_query = timed(lambda: status_query(manifest))
        _, compaction = timed(lambda: list(compact(manifest)))
        assert manifest.done(tasks) == done == {task.name for task in tasks}
        merged_answer, query = timed(lambda: status_query(manifest))
        assert merged_answer == answer == [("image", OK, None, PARTS * ROWS)]
    print(f"loose_status_query_seconds={loose_query:.2f} compaction_seconds={compaction:.1f}")
    print(f"resume_seconds={resume:.2f} status_query_seconds={query:.2f}")


if __name__ == "__main__":
    main()
