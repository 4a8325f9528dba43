# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""Repairing a cache: what is damaged is made again, with the same bytes or not at all."""

import logging
from collections.abc import Callable, Generator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lcm_distill.core.errors import DataError
from lcm_distill.core.regular_files import is_regular
from lcm_distill.core.words import counted
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.data.cache.catalog_building import commit_catalog, count_unnamed, number_annotations, restore_catalog
from lcm_distill.data.cache.damaged_shards import DamagedShards
from lcm_distill.data.cache.encoder_provenance import batch_sizes
from lcm_distill.data.cache.encoding import Encoding
from lcm_distill.data.cache.kept_rows import put_rows_aside
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK
from lcm_distill.data.cache.unfinished import is_of_fewer_rows
from lcm_distill.data.cache.verification import Damage, readable_entries
from lcm_distill.data.sources.registry import source_type
from lcm_distill.data.transforms import decode
from lcm_distill.formats.images import UnusableImage
from lcm_distill.pipeline.manifest import OK, QUARANTINED, Manifest, task_of_part
from lcm_distill.pipeline.manifest_parts import Entry
from lcm_distill.pipeline.task import Progress, Task

log = logging.getLogger(__name__)


def repair_catalog(cache: Cache, damage: Sequence[Damage]) -> None:
    """Number the data set again, which must give exactly the tasks that the cache contains.

    Raises:
        DataError: it does not; nothing was changed.
    """
    manifest, storage = cache.manifest, cache.storage
    restore_catalog(cache)
    catalog, bad = number_annotations(cache)
    committed = {entry.task: entry for file in manifest.files() for entry in readable_entries(storage, file)}
    for task in cache.tasks(catalog):
        entry = committed.get(task.name)
        if entry and entry.fingerprint != task.fingerprint and not is_of_fewer_rows(cache.layout, catalog, task, entry):
            raise DataError(f"{cache.source_root} is not what {storage.locate()} was made from: {_put_back(cache)}")
    _remove_misplaced(manifest, damage)
    manifest.drop([CATALOG_TASK])
    commit_catalog(cache, catalog, bad)
    count_unnamed(cache)


def encode_again(cache: Cache, damage: Sequence[Damage], repaired: list[str]) -> Generator[Progress, None, list[str]]:
    """Encode damaged shards again, each of which gets back every row as it was recorded, or stays as it is.

    Args:
        repaired: the names of restored tasks are appended to it.

    Returns:
        Images and captions whose rows cannot be restored, as what they were encoded from has changed.

    Raises:
        DataError: the data set no longer contains images of these shards; nothing was changed.
        UserError: an encoder is not the one that encoded the cache; nothing was changed.
    """
    manifest, names = cache.manifest, {found.task for found in damage}
    tasks = [task for task in cache.tasks() if task.name in names]
    _require_images(cache, tasks)
    cache.require_same_encoders(_metadata_of(damage))
    damaged, sizes = DamagedShards(manifest, tasks), batch_sizes(manifest, tasks)
    _remove_misplaced(manifest, damage)
    total, done = sum(task.size for task in tasks), 0
    for task, rows, file in Encoding(cache, cache.config.device, damaged, sizes).execute(tasks):
        manifest.drop([task.name])
        manifest.commit(task, rows, file)
        repaired.append(task.name)
        done += len(rows)
        if done < total:
            yield Progress("encode again", done, total, "rows")
    lost = [sample for samples in damaged.lost.values() for sample in samples]
    log.info("restored %d damaged tasks, lost %d rows", len(repaired), len(lost))
    if tasks:
        yield Progress("encode again", total, total, "rows", {"lost": len(lost)} if lost else {})
    return lost


def withdraw_mended(cache: Cache, catalog: Catalog) -> list[Task]:
    """Revoke the commits of tasks with quarantined records to be tried again; returns these tasks.

    These are images that can be used by now, and every caption: only its encoder tells whether it has an embedding.
    The other rows of their shards stay as they are (`data.cache.kept_rows`), whatever has become of their images.

    Raises:
        DataError: a part of the manifest is damaged; nothing was changed.
    """
    rows = cache.manifest.read(columns=["task", "kind", "status", "source"])
    rows = rows.filter(pc.field("status") == QUARANTINED)
    quarantined = rows.filter(pc.field("kind") == "image")
    tasks_of: dict[str, set[str]] = {}
    for task, source in zip(quarantined["task"].to_pylist(), quarantined["source"].to_pylist(), strict=True):
        tasks_of.setdefault(source, set()).add(task)
    names = set[str](rows.filter(pc.field("kind") == "caption")["task"].to_pylist())
    version = cache.transform
    for path, content in cache.source.read(list(tasks_of)):
        if _is_usable(content, cache.config.data.min_size, version):
            names |= tasks_of[path]
    mended = [task for task in cache.tasks(catalog) if task.name in names]
    put_rows_aside(cache.manifest, cache.layout, catalog, mended)
    cache.manifest.drop(names)
    return mended


def _is_usable(content: bytes | UnusableImage, min_size: int, version: int) -> bool:
    try:
        decode(content, min_size, version)
    except UnusableImage:
        return False
    return True


def _put_back(cache: Cache) -> str:
    if source_type(cache.config.data).generated:
        return f"delete {cache.source_root}, and `lcm precompute --run {cache.owner.root}` generates it again"
    return "put it back as it was, or start another --run"


def _metadata_of(damage: Sequence[Damage]) -> list[str]:
    """Names of the fields whose metadata is damaged."""
    return [found.path.split("/")[0] for found in damage if found.path.endswith("/zarr.json")]


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
        return is_regular(source.file_of(path))

    gone = _missing_images(cache, [task for task in tasks if task.name in names], exists)
    if gone:
        raise DataError(
            f"{cache.source_root} lacks {counted(len(gone), 'image')} of broken shards, such as {gone[0]}: "
            "put them back and repair again"
        )


def _missing_images(cache: Cache, tasks: Sequence[Task], exists: Callable[[str], bool]) -> list[str]:
    """Paths of images of the tasks that were usable and no longer exist.

    Where no manifest part tells which were usable, images count as missing if none of the task exists.
    """
    manifest, names = cache.manifest, {task.name for task in tasks}
    known, gone = set[str](), list[str]()
    for file in manifest.files():
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
        return list(manifest.rows(file, names))
    except DataError:
        return []


def _remove_misplaced(manifest: Manifest, damage: Sequence[Damage]) -> None:
    """Delete parts and metadata that cannot be read or are in another's place, and would stay in the way."""
    loose = set(manifest.loose_parts())
    for file in {found.path for found in damage if found.path in loose and task_of_part(found.path) != found.task}:
        manifest.storage.remove(file)
    for file in manifest.files():
        try:
            list(manifest.rows(file))
        except DataError:
            manifest.storage.remove(file)
    for field in _metadata_of(damage):
        manifest.storage.remove(f"{field}/zarr.json")
