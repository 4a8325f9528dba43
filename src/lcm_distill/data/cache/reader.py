"""Random access to the rows of a field: a few threads read them into place and verify them on the way."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import crc32c
import numpy as np

from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.buffers import Allocate, Buffers, memory_for_batches
from lcm_distill.data.cache.format import CHECKSUM, Field
from lcm_distill.data.cache.shard_files import open_shard

OPEN_SHARDS = 256
"""Files a reader keeps open, well below the usual limit of 1,024 for two readers."""
THREADS = max(2, min(8, os.cpu_count() or 1))
THREAD_BYTES = 2**20
"""What is worth a thread of its own."""
RUN_BYTES = 2**19
"""Neighbours read at once; more would leave the processor's cache before their checksums are taken."""
RUN_ROWS = 256
"""Neighbours read at once: each takes two of the 1,024 targets a call may have."""


class FieldReader:
    """The rows of a field, checksums verified. Threads may share a reader.

    Args:
        allocate: where rows are read to; `memory_for_batches` if not given.
    """

    def __init__(self, cache: Path, field: Field, allocate: Allocate | None = None) -> None:
        self.cache, self.field = cache, field
        self._shard = lru_cache(maxsize=OPEN_SHARDS)(partial(open_shard, cache, field))
        self._threads = ThreadPoolExecutor(THREADS, "cache-reader")
        self._buffers = Buffers(allocate or memory_for_batches())

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Rows by number, in any order and with repeats, float16 (len(rows), *shape).

        Raises:
            IndexError: there is no such row.
            DataError: a shard is absent or laid out otherwise than `encode_shard` does it, or a row's bytes do not
                match their checksum; the message names shard and row.
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
            pass  # an error of a thread is raised here
        for place in np.flatnonzero(stored.view("<u4")[:, 0] != computed):
            raise self._broken(int(rows[place]), "does not match its checksum")
        return payload.view(np.float16).reshape(len(rows), *field.shape)

    def _gather(
        self,
        rows: np.ndarray,
        payload: Sequence[memoryview],
        stored: Sequence[memoryview],
        computed: np.ndarray,
        places: np.ndarray,
    ) -> None:
        """Fill the arrays at `places`, which are in the order of their rows."""
        for shard, slot, run in self._runs(rows[places], places):
            targets = [part for place in run for part in (payload[place], stored[place])]
            there = self._shard(shard).read(slot * self.field.stride, targets)
            if there != len(run) * self.field.stride:
                raise self._broken(shard * self.field.shard_rows + slot + there // self.field.stride, "is cut short")
            # At once, while the bytes are in the processor's cache; other threads read meanwhile.
            for place in run:
                computed[place] = crc32c.crc32c(payload[place], 0, True)

    def _runs(self, rows: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, int, list[int]]]:
        """Places of rows that are neighbours within a shard, each time with shard and slot of the first row."""
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
        path = self.field.shard_path(self.cache, row // self.field.shard_rows)
        return DataError(f"{path}: row {row} {how}: delete the file and precompute again")


def _views(array: np.ndarray) -> list[memoryview]:
    """Each row of an array of uint8. Rows taken by numpy would cost more than the system call that fills them."""
    memory, size = array.reshape(-1).data, array.shape[1]
    return [memory[start : start + size] for start in range(0, len(memory), size)]
