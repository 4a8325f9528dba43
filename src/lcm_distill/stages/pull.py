# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Copying a cache from an object store to the run folder, from which training reads."""

import logging
from collections.abc import Iterator, Sequence

from lcm_distill.arrays.metadata import read_metadata
from lcm_distill.config import Config
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.words import counted
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.catalog_files import examine_catalog_file
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK
from lcm_distill.data.cache.shared_cache import require_own
from lcm_distill.pipeline.file_verification import examine, withdraw_damaged
from lcm_distill.pipeline.hashed_parquet import UNREADABLE
from lcm_distill.pipeline.manifest import Manifest, part_name
from lcm_distill.pipeline.manifest_parts import Entry, decode_part
from lcm_distill.pipeline.prefetch import prefetch_map
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import Storage
from lcm_distill.pipeline.task import Progress

AT_ONCE = 4
"""Number of tasks that are copied at the same time; each has a shard in memory."""
MB = 10**6

log = logging.getLogger(__name__)


def pull(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Copy every committed task that is not in the run folder: its files, whose hashes are verified, and then its part.

    Raises:
        UserError: the cache is not made in an object store, or is another run's, or nothing is there yet, or it is
            being extended there and what is here is whole.
        DataError: files in the store are not what was written; all others are copied.
    """
    require_own(config.cache, run, "cache pull")
    if config.cache.location is None:
        raise UserError(
            f"cache.location is unset, as the cache of {run.root} is made where it is used: `lcm precompute --run "
            f"{run.root} --set cache.location=s3://BUCKET/PREFIX` names the store that it is made in, or lies in"
        )
    remote, local = Cache.open(config, run).manifest, Cache.local(config, run).manifest
    entries = remote.entries()
    if not entries:
        raise UserError(f"{remote.storage.locate()} holds no cache yet: run `lcm precompute --run {run.root}` first")
    withdraw_damaged(local, [])
    here = local.entries()
    _require_no_extension(Cache.open(config, run), here.get(CATALOG_TASK), entries.get(CATALOG_TASK))
    missing = [entry for entry in entries.values() if not _is_here(local.storage, here.get(entry.task), entry)]
    local.drop(entry.task for entry in missing)
    _copy_metadata(remote, local.storage, list(entries.values()))
    damaged: list[str] = []
    yield from _copy_tasks(remote, local, list(entries.values()), missing, damaged)
    if damaged:
        raise DataError(
            f"{counted(len(damaged), 'file is', 'files are')} not what was written, such as "
            f"{remote.storage.locate(damaged[0])}: `lcm verify --repair --run {run.root}` encodes them again"
        )


def _require_no_extension(cache: Cache, ours: Entry | None, theirs: Entry | None) -> None:
    """Check that a catalog which replaces the one that is here has all its shards, as what is here is used as it is.

    Raises:
        UserError: some are lacking.
    """
    if ours is None or theirs is None or ours == theirs:
        return
    tasks = cache.tasks()
    if lacking := len(tasks) - len(cache.manifest.done(tasks)):
        raise UserError(
            f"{cache.storage.locate()} is being extended and lacks {counted(lacking, 'shard')}: run `lcm precompute "
            f"--run {cache.run.root}` first; what is here stays as it was"
        )


def _copy_tasks(
    remote: Manifest, local: Manifest, entries: Sequence[Entry], missing: Sequence[Entry], damaged: list[str]
) -> Iterator[Progress]:
    """Copy the missing ones of all tasks; the names of damaged files are appended to `damaged`."""
    total = sum(map(_size, entries))
    done = resumed = total - sum(map(_size, missing))
    left = len(missing)
    yield _progress(done, total, left, resumed, 0)
    copies = prefetch_map(lambda entry: _copy(remote, local, entry), missing, AT_ONCE, AT_ONCE)
    for entry, broken in zip(missing, copies, strict=True):
        done += _size(entry)
        left -= 1
        for name in broken:
            log.warning("%s is not what was written", remote.storage.locate(name))
        damaged += broken
        yield _progress(done, total, left, resumed, len(damaged))


def _progress(done: int, total: int, left: int, resumed: int, damaged: int) -> Progress:
    """In MB, of which the total is rounded up: it is reached with the last task and not before."""
    total = -(-total // MB)
    return Progress("pull", done // MB if left else total, total, "MB", {"damaged": damaged}, resumed // MB)


def _is_here(local: Storage, ours: Entry | None, theirs: Entry) -> bool:
    sizes = local.sizes([file.name for file in theirs.files])
    return ours == theirs and all(sizes.get(file.name) == file.size for file in theirs.files)


def _copy_metadata(remote: Manifest, local: Storage, entries: list[Entry]) -> None:
    """Copy each field's `zarr.json`.

    Raises:
        DataError: one is missing or damaged.
    """
    fields = {file.name.split("/")[0] for entry in entries for file in entry.files} - {"catalog"}
    for name in (f"{field}/zarr.json" for field in sorted(fields)):
        read_metadata(remote.storage, name, remote.remedy)
        local.put(name, [remote.storage.read(name)])


def _copy(remote: Manifest, local: Manifest, entry: Entry) -> list[str]:
    """Copy a task; returns the names of damaged files, with which it is not committed here."""
    # An extension of the catalog may have been interrupted in the store, or be under way.
    look = examine_catalog_file if entry.task == CATALOG_TASK else examine
    damaged = [
        file.name for file in entry.files if not _copy_file(look(remote.storage, file), local.storage, file.name)
    ]
    if damaged:
        return damaged
    part = _part_of(remote, entry)
    if part is None:
        return [part_name(entry.task)]
    local.storage.put(part_name(entry.task), [part])
    return []


def _part_of(remote: Manifest, entry: Entry) -> bytes | None:
    """The content of a task's part, if it is what was written and still that of the entry."""
    try:
        content = remote.storage.read(part_name(entry.task))
        return content if [listed for listed, _ in decode_part(content, remote.schema)] == [entry] else None
    except UNREADABLE:
        return None


def _copy_file(examined: tuple[str | None, bytes | None], local: Storage, name: str) -> bool:
    """Write what `examine` found, if it is sound."""
    reason, content = examined
    if content is None or reason:
        return False
    local.put(name, [content])
    return True


def _size(entry: Entry) -> int:
    return sum(file.size for file in entry.files)
