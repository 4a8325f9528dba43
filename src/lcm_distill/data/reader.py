"""Random access to the rows of a field: a few threads read them into place and verify them on the way."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import google_crc32c
import numpy as np

from lcm_distill.data.buffers import Buffers
from lcm_distill.data.cache import CHECKSUM, Field
from lcm_distill.data.shard_files import open_shard
from lcm_distill.errors import DataError

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
    """The rows of a field, checksums verified. Threads may share a reader."""

    def __init__(self, cache: Path, field: Field) -> None:
        self.cache, self.field = cache, field
        self._shard = lru_cache(maxsize=OPEN_SHARDS)(partial(open_shard, cache, field))
        self._threads = ThreadPoolExecutor(THREADS, "cache-reader")
        self._buffers = Buffers()

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
        gather = partial(self._gather, rows, payload, stored, computed)
        for _ in map(gather, portions) if threads == 1 else self._threads.map(gather, portions):
            pass  # an error of a thread is raised here
        for place in np.flatnonzero(stored.view("<u4")[:, 0] != computed):
            raise self._broken(int(rows[place]), "does not match its checksum")
        return payload.view(np.float16).reshape(len(rows), *field.shape)

    def _gather(
        self, rows: np.ndarray, payload: np.ndarray, stored: np.ndarray, computed: np.ndarray, places: np.ndarray
    ) -> None:
        """Fill the arrays at `places`, which are in the order of their rows."""
        shard_rows, stride = self.field.shard_rows, self.field.stride
        sealed = payload.view()
        sealed.flags.writeable = False  # google_crc32c takes nothing that may change under it
        for first, run in self._runs(rows[places], places):
            shard, slot = divmod(first, shard_rows)
            targets = [part for place in run for part in (payload[place], stored[place])]
            there = self._shard(shard).read(slot * stride, targets)
            if there != len(run) * stride:
                raise self._broken(first + there // stride, "is cut short")
            # At once, while the bytes are in the processor's cache.
            for place in run:
                computed[place] = google_crc32c.value(sealed[place])

    def _runs(self, rows: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, list[int]]]:
        """Places of rows that are neighbours within a shard, each time with the first row."""
        shard_rows, longest = self.field.shard_rows, max(1, min(RUN_BYTES // self.field.stride, RUN_ROWS))
        first, run = 0, []
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            if run and (row != first + len(run) or row % shard_rows == 0 or len(run) == longest):
                yield first, run
                run = []
            first = first if run else row
            run.append(place)
        if run:
            yield first, run

    def _broken(self, row: int, how: str) -> DataError:
        path = self.field.shard_path(self.cache, row // self.field.shard_rows)
        return DataError(f"{path}: row {row} {how}: delete the file and precompute again")
