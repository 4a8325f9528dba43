"""Random access to the rows of a field: threads read rows into one array and verify their checksums."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import crc32c
import numpy as np

from lcm_distill.arrays.buffers import Allocate, Buffers, memory_for_batches
from lcm_distill.arrays.format import CHECKSUM, Field
from lcm_distill.arrays.shard_files import open_shard
from lcm_distill.core.errors import DataError

OPEN_SHARDS = 256
"""Files that a reader keeps open; for two readers well below the usual limit of 1,024."""
THREADS = max(2, min(8, os.cpu_count() or 1))
THREAD_BYTES = 2**20
"""Bytes per thread, below which a further thread does not help."""
RUN_BYTES = 2**19
"""Bytes of consecutive rows read by one call; more would leave the processor's cache before they are checksummed."""
RUN_ROWS = 256
"""Consecutive rows read by one call: each takes two of the 1,024 targets that a call may have."""


class FieldReader:
    """The rows of a field, with verified checksums. Threads may share a reader.

    Args:
        folder: of the arrays.
        allocate: allocates the memory that rows are read into; `memory_for_batches` by default.
        checksums: CRC-32C of each row, int64 (field.rows,), as its commit recorded it; -1 where it recorded none. They
            belong to row numbers, so that a row in another one's place is found.
        remedy: what to do about a damaged shard, for messages.
    """

    def __init__(
        self,
        folder: Path,
        field: Field,
        allocate: Allocate | None = None,
        checksums: np.ndarray | None = None,
        remedy: str = "delete the file and precompute again",
    ) -> None:
        self.folder, self.field, self._checksums, self._remedy = folder, field, checksums, remedy
        self._shard = lru_cache(maxsize=OPEN_SHARDS)(partial(open_shard, folder, field, remedy))
        self._threads = ThreadPoolExecutor(THREADS, "cache-reader")
        self._buffers = Buffers(allocate or memory_for_batches())

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Rows by number, in any order and with repeats, float16 (len(rows), *shape).

        Raises:
            IndexError: there is no such row.
            DataError: a shard is missing or does not have the layout of `encode_shard`, or a row does not match its
                checksum; the message names shard and row.
        """
        field, rows = self.field, np.asarray(rows, np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < field.rows:
            raise IndexError(f"{field.name} has rows 0 to {field.rows - 1}, not {rows.min()} to {rows.max()}")
        payload = self._buffers.empty((len(rows), field.row_bytes))
        stored, computed = np.empty((len(rows), CHECKSUM), np.uint8), np.empty(len(rows), "<u4")
        threads = min(THREADS, 1 + payload.nbytes // THREAD_BYTES)
        portions = np.array_split(np.argsort(rows, kind="stable"), threads)
        gather = partial(self._gather, rows, _views(payload), _views(stored), computed)
        for _ in map(gather, portions) if threads == 1 else self._threads.map(gather, portions):
            pass  # raises the errors of threads
        for place in np.flatnonzero(stored.view("<u4")[:, 0] != computed):
            raise self._broken(int(rows[place]), "does not match its checksum")
        if self._checksums is not None:
            recorded = self._checksums[rows]
            for place in np.flatnonzero((recorded >= 0) & (recorded != computed)):
                raise self._broken(int(rows[place]), "does not match the manifest's checksum")
        return payload.view(np.float16).reshape(len(rows), *field.shape)

    def close(self) -> None:
        """End the threads that read; no rows can be read afterwards."""
        self._threads.shutdown()

    def _gather(
        self,
        rows: np.ndarray,
        payload: Sequence[memoryview],
        stored: Sequence[memoryview],
        computed: np.ndarray,
        places: np.ndarray,
    ) -> None:
        """Fill the arrays at the indices `places`, which are in the order of their rows."""
        for shard, slot, run in self._runs(rows[places], places):
            targets = [part for place in run for part in (payload[place], stored[place])]
            there = self._shard(shard).read(slot * self.field.stride, targets)
            if there != len(run) * self.field.stride:
                raise self._broken(shard * self.field.shard_rows + slot + there // self.field.stride, "is cut short")
            # At once, while the bytes are in the processor's cache and other threads read.
            for place in run:
                computed[place] = crc32c.crc32c(payload[place], 0, True)

    def _runs(self, rows: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, int, list[int]]]:
        """Runs of consecutive rows of a shard: the shard, the first row's slot in it, the indices of the rows."""
        shards, slots = np.divmod(rows, self.field.shard_rows)
        longest = max(1, min(RUN_BYTES // self.field.stride, RUN_ROWS))
        number = np.arange(len(rows))
        apart = np.diff(rows, prepend=-2) != 1
        since = number - np.maximum.accumulate(np.where(apart | (slots == 0), number, 0))
        starts = np.flatnonzero(since % longest == 0)
        bounds = pairwise([*starts.tolist(), len(rows)])
        numbers = places.tolist()
        for shard, slot, bound in zip(shards[starts].tolist(), slots[starts].tolist(), bounds, strict=True):
            yield shard, slot, numbers[slice(*bound)]

    def _broken(self, row: int, how: str) -> DataError:
        path = self.field.shard_path(self.folder, row // self.field.shard_rows)
        return DataError(f"{path}: row {row} {how}: {self._remedy}")


def _views(array: np.ndarray) -> list[memoryview]:
    """The rows of a uint8 array. Indexing with numpy would take longer than the system call that fills the row."""
    memory, size = array.reshape(-1).data, array.shape[1]
    return [memory[start : start + size] for start in range(0, len(memory), size)]
