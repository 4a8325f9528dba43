# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
"""What is left of damaged shards: rows that are intact, and the checksums that rows encoded again must have."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import crc32c
import numpy as np

from lcm_distill.arrays.format import Field, decode_rows
from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.manifest_rows import SAMPLE_COLUMNS, SampleRow
from lcm_distill.pipeline.manifest import OK, QUARANTINED, Manifest
from lcm_distill.pipeline.storage import Storage
from lcm_distill.pipeline.task import Task


class DamagedShards:
    """What is left of the shards of damaged tasks.

    Args:
        manifest: of the cache; what its parts record of the tasks is read at once, before they are replaced.

    Attributes:
        lost: of tasks that cannot be restored, the images and captions whose rows are damaged and come out otherwise.
    """

    def __init__(self, manifest: Manifest, tasks: Sequence[Task]) -> None:
        self._storage: Storage = manifest.storage
        self._records = _recorded_rows(manifest, {task.name for task in tasks})
        self.lost: dict[str, list[str]] = {}

    def restore(self, task: Task, field: Field, rows: np.ndarray, records: list[SampleRow]) -> bool:
        """Make rows that were encoded again equal to what was recorded of them; whether that was possible.

        A row that comes out otherwise, because its image has changed, is taken from the damaged file where it is intact
        there. A sample that was usable stays so.

        Args:
            rows: float16 (n, *field.shape), as encoded now; changed in place.
            records: their manifest rows; changed in place.
        """
        old, stored = self._records.get(task.name), stored_rows(self._storage, task, field, len(rows))
        lost: list[str] = []
        for index, (row, record) in enumerate(zip(rows, records, strict=True)):
            there = stored[index] if index < len(stored) else None
            recorded = old[index] if old and index < len(old) else None  # fewer where the data set has grown
            expected = recorded.get("checksum") if recorded else there and there[0]
            now = _checksum(row)
            if expected is None or (now == expected and _agrees(recorded, record)):
                continue
            if there is not None and now == there[0] != expected:
                continue  # image and file agree: it is the manifest that is wrong
            if there is None or there[0] != expected:
                lost.append(str(record.get("source") or f"caption {record.get('row')}"))
                continue
            row[...] = there[1]
            records[index] = recorded or _described(record, usable=bool(np.isfinite(row).all()))
        if lost:
            self.lost[task.name] = lost
        return not lost


def stored_rows(storage: Storage, task: Task, field: Field, count: int) -> list[tuple[int, np.ndarray] | None]:
    """The first `count` rows of a task's file, as `decode_rows` gives them; none where there is no file."""
    try:
        content = storage.read(task.inputs["file"])
    except FileNotFoundError:
        return []
    return decode_rows(field, content, count)


def _checksum(row: np.ndarray) -> int:
    return crc32c.crc32c(np.ascontiguousarray(row).reshape(-1).view(np.uint8).data)


def _agrees(recorded: SampleRow | None, record: SampleRow) -> bool:
    return recorded is None or recorded.get("status") == record.get("status")


def _described(record: SampleRow, usable: bool) -> SampleRow:
    """A manifest row for a stored row of which no part tells whether its image was usable."""
    described = cast(SampleRow, {name: value for name, value in record.items() if name != "error"})
    if usable:
        return cast(SampleRow, {**described, "status": OK})
    return cast(SampleRow, {**described, "status": QUARANTINED, "error": "was not usable when it was encoded"})


def _recorded_rows(manifest: Manifest, names: set[str]) -> dict[str, list[SampleRow]]:
    """Manifest rows of tasks by name, of those parts that can be read."""
    found: dict[str, list[SampleRow]] = {}
    for file in manifest.files():
        try:
            found |= {
                entry.task: [recorded_row(row) for row in rows.to_pylist()]
                for entry, rows in manifest.rows(file, names)
            }
        except DataError:
            continue
    return found


def recorded_row(row: Mapping[str, Any]) -> SampleRow:
    """A row of the manifest as it was committed, without what names its file."""
    named = {name: row[name] for name in SAMPLE_COLUMNS.names if row[name] is not None}
    return cast(SampleRow, {"checksum": None, **named})
