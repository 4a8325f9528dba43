# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""Merging a manifest's many parts into few files, without a moment in which a task counts twice or not at all.

The merged files are written into a hidden folder beside the manifest, and then the two folders change places in one
step of the file system. So

- killed before the exchange, the manifest is as it was; killed after it, it is the compacted one;
- a reader that lists the folder sees the parts or the merged files, never both. One that listed before the exchange
  and opens after it gets "no such file" from DuckDB and asks again: merged files bear names that were never used
  before, so an old list cannot lead to new rows;
- a part that a writer commits meanwhile is carried over after the exchange. A writer caught in the middle of a commit
  ends with "no such file", and the same command goes on;
- a damaged merged file costs the rows of all its tasks, where a damaged part costs one task's.

What a killed compaction leaves is the hidden folder; the next compaction deletes it. File systems that cannot exchange
folders (NFS is one) and object stores keep their loose parts: everything works with them as well.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.atomic import exchange_folders
from lcm_distill.pipeline.manifest import FOLDER, MERGED, Manifest
from lcm_distill.pipeline.parts import Entry, encode_part
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Progress, Task

TASKS_PER_FILE = 128
BUILDING = ".compacting-"
"""Prefix of the hidden folder. It is not the one of orphans, which another command may delete at any time."""


def compact(manifest: Manifest, tasks_per_file: int = TASKS_PER_FILE) -> Iterator[Progress]:
    """Merge all tasks, in order of name, into files of `tasks_per_file` each; nothing to do if they are already.

    Raises:
        DataError: a part is damaged; nothing was changed.
        UserError: another compaction is under way, or the manifest lies where folders cannot be exchanged; nothing
            was changed.
    """
    storage = manifest.storage
    if not isinstance(storage, LocalStorage):
        raise UserError(f"{storage.locate(FOLDER)} cannot be compacted where it is: compact a copy on a local disk")
    folder = storage.root / FOLDER
    with _alone(storage.root):
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
        _carry_over(manifest, building, folder, merged)
        shutil.rmtree(building)
        yield Progress("compact", len(entries), len(entries), "tasks", {"files": len(manifest.merged_files())})


def _merge(manifest: Manifest, entries: Sequence[Entry], folder: Path) -> None:
    table = manifest.read([Task(entry.task, entry.fingerprint) for entry in entries])
    LocalStorage(folder).put(f"{MERGED}{secrets.token_hex(8)}.parquet", [encode_part(table, entries)])


def _carry_over(manifest: Manifest, old: Path, folder: Path, merged: dict[str, tuple[int, int]]) -> None:
    """Move parts that were committed while the merged files were written; a part that was replaced is another file."""
    for part in sorted(old.glob("[!.]*.parquet")):
        if merged.get(part.name) != _identity(part):
            manifest.drop([part.stem])
            os.replace(part, folder / part.name)


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another one that took its name, even if it was given the same inode."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Hold the folder's lock, which the system releases even if the process is killed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"{folder} is being compacted already: wait until that has finished") from None
    finally:
        os.close(descriptor)
