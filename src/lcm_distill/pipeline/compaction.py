# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""Merging a manifest's many parts into few files. At every moment each task is in exactly one file.

The merged files are written into a hidden folder beside the manifest, and then the two folders change places in one
step of the file system. So

- killed before the exchange, the manifest is the old one; killed after it, the compacted one;
- a reader that lists the folder sees the parts or the merged files, never both. One that listed before the exchange
  and opens after it gets "no such file" from DuckDB and queries again: merged files have names that were never used
  before, so an old list cannot lead to new rows;
- a part that a writer commits meanwhile is moved over after the exchange. A writer that is interrupted in the middle of
  a commit fails with "no such file", and the same command resumes;
- a damaged merged file loses the rows of all its tasks, a damaged part those of one task.

A killed compaction leaves the hidden folder, which the next compaction deletes. File systems that cannot exchange
folders (such as NFS) and object stores keep their loose parts, which everything can read as well.
"""

import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.atomic_writes import exchange_folders
from lcm_distill.pipeline.lock import owned
from lcm_distill.pipeline.manifest import FOLDER, MERGED, Manifest
from lcm_distill.pipeline.manifest_parts import Entry, encode_part
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Progress, Task

TASKS_PER_FILE = 128
BUILDING = ".compacting-"
"""Prefix of the hidden folder. It differs from that of orphans, which another command may delete at any time."""

log = logging.getLogger(__name__)


def compact(manifest: Manifest, tasks_per_file: int = TASKS_PER_FILE) -> Iterator[Progress]:
    """Merge all tasks, in order of name, into files of `tasks_per_file` each. Yields nothing if that is done already.

    Raises:
        DataError: a part is damaged; nothing was changed.
        UserError: another compaction is running, or folders cannot be exchanged where the manifest is; nothing was
            changed.
    """
    storage = manifest.storage
    if not isinstance(storage, LocalStorage):
        raise UserError(f"{storage.locate(FOLDER)} cannot be compacted where it is: compact a copy on a local disk")
    folder = storage.root / FOLDER
    with owned(storage.root, ["compact"], "cache compact", "and compact it then"):
        building = folder.with_name(BUILDING + FOLDER)
        shutil.rmtree(building, ignore_errors=True)
        merged = {
            Path(file).name: _identity(storage.root / file)
            for file in (*manifest.merged_files(), *manifest.loose_parts())
        }
        entries = sorted(manifest.entries().values(), key=lambda entry: entry.task)
        if not manifest.loose_parts() and len(merged) <= -(-len(entries) // tasks_per_file):
            return
        building.mkdir()
        for start in range(0, len(entries), tasks_per_file):
            yield Progress("compact", start, len(entries), "tasks")
            _merge(manifest, entries[start : start + tasks_per_file], building)
        exchange_folders(building, folder)
        log.info("compacted %d tasks of %s", len(entries), folder)
        _move_new_parts(manifest, building, folder, merged)
        shutil.rmtree(building)
        yield Progress("compact", len(entries), len(entries), "tasks", {"files": len(manifest.merged_files())})


def _merge(manifest: Manifest, entries: Sequence[Entry], folder: Path) -> None:
    table = manifest.read([Task(entry.task, entry.fingerprint) for entry in entries])
    LocalStorage(folder).put(f"{MERGED}{secrets.token_hex(8)}.parquet", [encode_part(table, entries)])


def _move_new_parts(manifest: Manifest, old: Path, folder: Path, merged: dict[str, tuple[int, int]]) -> None:
    """Move parts that were committed while the merged files were written; a part that was replaced counts as new."""
    for part in sorted(old.glob("[!.]*.parquet")):
        if merged.get(part.name) != _identity(part):
            manifest.drop([part.stem])
            os.replace(part, folder / part.name)


def _identity(path: Path) -> tuple[int, int]:
    """What differs between a file and another one that has replaced it, even one with the same inode."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
