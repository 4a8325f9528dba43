# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""Repairing a cache: what is damaged is made again, with the same bytes."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pyarrow as pa

from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.encoding import open_encoding
from lcm_distill.data.cache.rows import CATALOG_TASK
from lcm_distill.data.cache.verification import Damage, manifest_files, readable_entries
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.manifest import OK, Manifest
from lcm_distill.pipeline.parts import Entry, read_rows
from lcm_distill.pipeline.task import Progress, Task

log = logging.getLogger(__name__)


def repair_catalog(cache: Cache, damage: Sequence[Damage]) -> None:
    """Number the data set again, which must give exactly the tasks that the cache contains.

    Raises:
        DataError: it does not; nothing was changed.
    """
    manifest, storage = cache.manifest, cache.storage
    catalog, bad = cache.number_annotations()
    committed = {entry.task: entry for file in manifest_files(manifest) for entry in readable_entries(storage, file)}
    for task in cache.tasks(catalog):
        if task.name in committed and committed[task.name].fingerprint != task.fingerprint:
            raise DataError(
                f"{cache.source_root} is not what {storage.locate()} was made from: "
                "put it back as it was, or start another --run"
            )
    _remove_unreadable(manifest, damage)
    manifest.drop([CATALOG_TASK])
    cache.commit_catalog(catalog, bad)


def revoke_damaged(cache: Cache, damage: Sequence[Damage]) -> list[Task]:
    """Revoke the commits of damaged tasks, so that they can be done again; returns these tasks.

    Raises:
        DataError: the data set no longer contains their images; nothing was changed.
    """
    manifest, names = cache.manifest, {found.task for found in damage}
    damaged = [task for task in cache.tasks() if task.name in names]
    _require_images(cache, damaged)
    _remove_unreadable(manifest, damage)
    manifest.drop(task.name for task in damaged)
    log.info("revoked %d damaged tasks: %s", len(damaged), ", ".join(task.name for task in damaged))
    return damaged


def encode_again(cache: Cache, tasks: Sequence[Task]) -> Iterator[Progress]:
    """Execute tasks whose commits were revoked."""
    rows, done = sum(task.size for task in tasks), 0
    for _, _, entry in Serial().run(tasks, cache.manifest, partial(open_encoding, cache.config, cache.run)):
        done += entry.rows
        yield Progress("encode again", done, rows, "rows")


def _require_images(cache: Cache, tasks: Sequence[Task]) -> None:
    """Every image that was encoded must still exist: a shard that is encoded again without it would lose it.

    Raises:
        DataError: one does not.
    """
    names = {task.name for task in tasks if task.inputs["kind"] == "image"}
    if not names:
        return
    source = cache.source

    def exists(path: str) -> bool:
        return source.file_of(path).is_file()

    gone = _missing_images(cache, [task for task in tasks if task.name in names], exists)
    if gone:
        raise DataError(
            f"{cache.source_root} lacks {len(gone)} images of broken shards, such as {gone[0]}: "
            "put them back and repair again"
        )


def _missing_images(cache: Cache, tasks: Sequence[Task], exists: Callable[[str], bool]) -> list[str]:
    """Paths of images of the tasks that were usable and no longer exist.

    Where no manifest part tells which were usable, images count as missing if none of the task exists.
    """
    manifest, names = cache.manifest, {task.name for task in tasks}
    known, gone = set[str](), list[str]()
    for file in manifest_files(manifest):
        for entry, rows in _readable_rows(manifest, file, names):
            known.add(entry.task)
            pairs = zip(rows["source"].to_pylist(), rows["status"].to_pylist(), strict=True)
            gone += [path for path, status in pairs if status == OK and not exists(path)]
    samples = cache.read_catalog().samples["path"]
    for task in tasks:
        if task.name not in known:
            paths = samples[task.inputs["start"] : task.inputs["stop"]].to_pylist()
            gone += paths if not any(map(exists, paths)) else []
    return gone


def _readable_rows(manifest: Manifest, file: str, names: set[str]) -> list[tuple[Entry, pa.Table]]:
    try:
        return list(read_rows(manifest.storage, file, manifest.schema, names))
    except DataError:
        return []


def _remove_unreadable(manifest: Manifest, damage: Sequence[Damage]) -> None:
    """Delete parts and metadata that cannot be read and would prevent writing them again."""
    for file in manifest_files(manifest):
        try:
            list(read_rows(manifest.storage, file, manifest.schema))
        except DataError:
            manifest.storage.remove(file)
    for found in damage:
        if found.path.endswith("/zarr.json"):
            manifest.storage.remove(found.path)
