"""A cache made in an object store, copied to the run folder, where training reads it."""

from collections.abc import Iterator
from hashlib import sha256

from lcm_distill.config import Config
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.data.cache.cache import cache_storage, open_manifest
from lcm_distill.pipeline.lookahead import map_ahead
from lcm_distill.pipeline.manifest import Manifest, part_name
from lcm_distill.pipeline.parts import Entry
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage, Storage, WrittenFile
from lcm_distill.pipeline.task import Progress

AT_ONCE = 4
"""Tasks that are copied side by side; each holds a shard in memory."""
MB = 10**6


def pull(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Copy every committed task that is not here yet: its files, each held to its hash, and then its manifest part.

    Raises:
        UserError: the cache is not made in an object store, or nothing is there yet.
        DataError: files there are not what was written; all others are copied.
    """
    if config.cache.location is None:
        raise UserError(f"cache.location is unset: the cache of {run.root} is made where it is used")
    remote, local = open_manifest(cache_storage(config, run)), open_manifest(LocalStorage(run.cache))
    entries = remote.entries()
    if not entries:
        raise UserError(f"{remote.storage.locate()} holds no cache yet: run `lcm precompute` into {run.root} first")
    here = local.entries()
    missing = [entry for entry in entries.values() if not _is_here(local.storage, here.get(entry.task), entry)]
    local.drop(entry.task for entry in missing)
    _copy_metadata(remote.storage, local.storage, list(entries.values()))
    total, done = sum(map(_size, entries.values())), sum(map(_size, entries.values())) - sum(map(_size, missing))
    resumed, damaged = done, list[str]()
    yield Progress("pull", done // MB, total // MB, "MB", resumed=resumed // MB)
    copies = map_ahead(lambda entry: _copy(remote, local, entry), missing, AT_ONCE, AT_ONCE)
    for entry, broken in zip(missing, copies, strict=True):
        done += _size(entry)
        damaged += broken
        yield Progress("pull", done // MB, total // MB, "MB", {"damaged": len(damaged)}, resumed // MB)
    if damaged:
        raise DataError(
            f"{len(damaged)} files are not what was written, such as {remote.storage.locate(damaged[0])}: "
            f"`lcm verify --repair --run {run.root}` encodes them again"
        )


def _is_here(local: Storage, ours: Entry | None, theirs: Entry) -> bool:
    sizes = local.sizes([file.name for file in theirs.files])
    return ours == theirs and all(sizes.get(file.name) == file.size for file in theirs.files)


def _copy_metadata(remote: Storage, local: Storage, entries: list[Entry]) -> None:
    """Copy each field's `zarr.json`."""
    fields = {file.name.split("/")[0] for entry in entries for file in entry.files} - {"catalog"}
    for name in (f"{field}/zarr.json" for field in sorted(fields)):
        local.put(name, [remote.read(name)])


def _copy(remote: Manifest, local: Manifest, entry: Entry) -> list[str]:
    """Copy a task; returns the names of files that are damaged, without which it stays undone here."""
    damaged = [file.name for file in entry.files if not _copy_file(remote.storage, local.storage, file)]
    if not damaged:
        part = part_name(entry.task)
        local.storage.put(part, [remote.storage.read(part)])
    return damaged


def _copy_file(remote: Storage, local: Storage, file: WrittenFile) -> bool:
    try:
        content = remote.read(file.name)
    except FileNotFoundError:
        return False
    if sha256(content).hexdigest() != file.sha256:
        return False
    local.put(file.name, [content])
    return True


def _size(entry: Entry) -> int:
    return sum(file.size for file in entry.files)
