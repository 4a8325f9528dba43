# pyarrow ships no types.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""Rows that stay as they are when their shard is encoded again, because it grows or an image of it was mended.

A commit is revoked before its task is done again. What it recorded of the rows is put aside before that, and counts
until the task is committed, in whatever process and after however many interruptions.
"""

import logging
from collections.abc import Iterable

import numpy as np

from lcm_distill.arrays.format import Field
from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.data.cache.damaged_shards import recorded_row, stored_rows
from lcm_distill.data.cache.layout import CacheLayout
from lcm_distill.data.cache.manifest_rows import IMAGE_CHECKSUM, SampleRow
from lcm_distill.pipeline.manifest import OK, Manifest
from lcm_distill.pipeline.manifest_parts import encode_part, read_rows
from lcm_distill.pipeline.storage import Storage
from lcm_distill.pipeline.task import Task

FOLDER = "catalog/kept"
"""Files with what the manifest had of the rows of tasks that are done again."""
BEGUN = f"{FOLDER}/begun"
"""A file that is there from before the first task is done until all are."""
SAME = ("row", "sample_id", "caption_row", "split")
"""Columns that tell whether a row is still about the same sample."""

log = logging.getLogger(__name__)


def put_rows_aside(manifest: Manifest, layout: CacheLayout, catalog: Catalog, tasks: Iterable[Task]) -> None:
    """Record what the manifest has of the rows of tasks that will be done again, before their commits are revoked.

    Also records that tasks are being done, if there are any.
    """
    named = {task.name: task for task in tasks}
    if named:
        manifest.storage.put(BEGUN, [b"until all tasks are done"])
    for name, entry in manifest.entries(named).items():
        if entry.fingerprint != layout.begun_as(named[name], catalog, entry.rows):
            continue  # of other samples
        try:
            rows = manifest.read([named[name]])
        except DataError:  # then they are encoded again, all of them
            continue
        manifest.storage.put(_file(name), [encode_part(rows, [entry])])


def forget_rows(storage: Storage) -> None:
    """Remove what `put_rows_aside` recorded, once all tasks are done."""
    for file in storage.listing(FOLDER):
        storage.remove(file)


def is_under_way(storage: Storage) -> bool:
    """Whether tasks are being done, or were when the command was killed."""
    return bool(storage.listing(FOLDER))


class KeptRows:
    """The rows that were usable before their shard is encoded again.

    Args:
        manifest: of the cache; what was put aside is looked up at once.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._files = set(manifest.storage.listing(FOLDER))

    def restore(self, task: Task, field: Field, rows: np.ndarray, records: list[SampleRow]) -> None:
        """Take every row that was usable from the shard's file, where it is still what was recorded.

        Its image may be gone, damaged or another one by now. Rows that were quarantined, or are damaged in the file,
        stay as they were encoded now.

        Args:
            rows: float16 (n, *field.shape), as encoded now; changed in place.
            records: their manifest rows; changed in place.

        Raises:
            DataError: what was put aside is damaged.
        """
        before = self._recorded(task)
        stored = stored_rows(self._manifest.storage, task, field, len(rows)) if before else []
        for index, (recorded, there) in enumerate(zip(before, stored, strict=False)):
            record = records[index]
            if there is None or recorded.get("status") != OK or recorded.get("checksum") not in (None, there[0]):
                continue
            if any(recorded.get(column) != record.get(column) for column in SAME):
                continue
            if record.get("status") != OK:
                log.warning("%s stays as it was encoded: %s", recorded.get("source"), record.get("error"))
            elif recorded.get(IMAGE_CHECKSUM) not in (None, record.get(IMAGE_CHECKSUM)):
                log.warning("%s stays as it was encoded: its image is another one now", recorded.get("source"))
            rows[index], records[index] = there[1], recorded

    def _recorded(self, task: Task) -> list[SampleRow]:
        file = _file(task.name)
        if file not in self._files:
            return []
        remedy = "delete it, and images that are there are encoded again"
        found = read_rows(self._manifest.storage, file, self._manifest.schema, remedy=remedy)
        return [recorded_row(row) for _, rows in found for row in rows.to_pylist()]


def _file(task: str) -> str:
    return f"{FOLDER}/{task}.parquet"
