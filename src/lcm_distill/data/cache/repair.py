"""Making again what is broken in a cache, to the bytes that were there."""

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa

from lcm_distill.config import Config
from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.cache import (
    CATALOG_TASK,
    cache_storage,
    commit_catalog,
    number_annotations,
    open_manifest,
    plan,
    read_catalog,
    source_root,
)
from lcm_distill.data.cache.encoding import open_encoding
from lcm_distill.data.cache.verification import Damage, manifest_files, readable_entries
from lcm_distill.data.sources.registry import open_source
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.manifest import OK, Manifest
from lcm_distill.pipeline.parts import Entry, read_rows
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress, Task


def repair_catalog(config: Config, run: RunFolder, damage: Sequence[Damage]) -> None:
    """Number the source again; it must give the very tasks that the cache holds.

    Raises:
        DataError: it does not; nothing was changed.
    """
    cache = cache_storage(config, run)
    manifest = open_manifest(cache)
    catalog, bad = number_annotations(config, run)
    committed = {entry.task: entry for file in manifest_files(manifest) for entry in readable_entries(cache, file)}
    for task in plan(config, catalog):
        if task.name in committed and committed[task.name].fingerprint != task.fingerprint:
            raise DataError(
                f"{source_root(config, run)} is not what {cache.locate()} was made from: "
                "put it back as it was, or start another --run"
            )
    _remove_unreadable(manifest, damage)
    manifest.drop([CATALOG_TASK])
    commit_catalog(config, cache, catalog, bad)


def repair_shards(config: Config, run: RunFolder, damage: Sequence[Damage]) -> list[Task]:
    """Take back the commits of the broken tasks, so that they can be done again; returns these tasks.

    Raises:
        DataError: the source no longer holds what they were made from; nothing was changed.
    """
    cache = cache_storage(config, run)
    manifest, names = open_manifest(cache), {found.task for found in damage}
    broken = [task for task in plan(config, read_catalog(cache)) if task.name in names]
    _require_source(config, run, manifest, broken)
    _remove_unreadable(manifest, damage)
    manifest.drop(task.name for task in broken)
    return broken


def encode_again(config: Config, run: RunFolder, tasks: Sequence[Task]) -> Iterator[Progress]:
    """Do tasks again whose commits were taken back."""
    rows, done = sum(task.inputs["stop"] - task.inputs["start"] for task in tasks), 0
    manifest = open_manifest(cache_storage(config, run))
    for _, _, entry in Serial().run(tasks, manifest, partial(open_encoding, config, run)):
        done += entry.rows
        yield Progress("encode again", done, rows, "rows")


def _require_source(config: Config, run: RunFolder, manifest: Manifest, tasks: Sequence[Task]) -> None:
    """An image that was encoded once must be there still: encoding its shard without it would lose it."""
    names = {task.name for task in tasks if task.inputs["kind"] == "image"}
    if not names:
        return
    known, gone = set[str](), list[str]()
    data_set = open_source(config.data, source_root(config, run))

    def is_there(path: str) -> bool:
        return data_set.holder(path).is_file()

    for file in manifest_files(manifest):
        for entry, rows in _readable_rows(manifest, file, names):
            known.add(entry.task)
            pairs = zip(rows["source"].to_pylist(), rows["status"].to_pylist(), strict=True)
            gone += [source for source, status in pairs if status == OK and not is_there(source)]
    samples = read_catalog(manifest.storage).samples["path"]
    for task in tasks:
        if task.name in names - known:  # nothing says which of them could be used
            sources = samples[task.inputs["start"] : task.inputs["stop"]].to_pylist()
            gone += sources if not any(map(is_there, sources)) else []
    if gone:
        raise DataError(
            f"{source_root(config, run)} lacks {len(gone)} images of broken shards, such as {gone[0]}: "
            "put them back and repair again"
        )


def _readable_rows(manifest: Manifest, file: str, names: set[str]) -> list[tuple[Entry, pa.Table]]:
    try:
        return list(read_rows(manifest.storage, file, manifest.schema, names))
    except DataError:
        return []


def _remove_unreadable(manifest: Manifest, damage: Sequence[Damage]) -> None:
    """Parts and metadata that cannot be read stand in the way of writing them again."""
    for file in manifest_files(manifest):
        try:
            list(read_rows(manifest.storage, file, manifest.schema))
        except DataError:
            manifest.storage.remove(file)
    for found in damage:
        if found.path.endswith("/zarr.json"):
            manifest.storage.remove(found.path)
