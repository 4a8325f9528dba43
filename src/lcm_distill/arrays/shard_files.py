"""Open shard files: reading bytes at any offset into arrays."""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lcm_distill.arrays.format import Field, encode_index
from lcm_distill.core.errors import DataError
from lcm_distill.core.io_errors import naming_file


class DirectFile:
    """Reads with `preadv`, from any number of threads; the descriptor is closed with the object."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, offset: int, targets: Sequence[memoryview]) -> int:
        """Fill the targets one after the other; returns the number of bytes read.

        Raises:
            OSError: they cannot be read.
        """
        with naming_file(self._path):
            return os.preadv(self._descriptor, targets, offset)


class MappedFile:
    """Reads from a memory map, where the system has no `preadv`."""

    def __init__(self, path: Path) -> None:
        self._content = np.memmap(path, np.uint8, mode="r")

    def read(self, offset: int, targets: Sequence[memoryview]) -> int:
        """Fill the targets one after the other; returns the number of bytes read."""
        start = offset
        for target in targets:
            target[:] = self._content.data[start : start + len(target)]
            start += len(target)
        return start - offset


ShardFile = DirectFile if hasattr(os, "preadv") else MappedFile


def open_shard(folder: Path, field: Field, remedy: str, shard: int) -> DirectFile | MappedFile:
    """Open a shard's file, after checking its length and index.

    Args:
        remedy: what to do about a damaged shard, for messages.

    Raises:
        DataError: it is missing, has another length or another index.
    """
    path = field.shard_path(folder, shard)
    present = min(field.shard_rows, field.rows - shard * field.shard_rows)
    index = encode_index(field, present)
    if not path.is_file() or path.stat().st_size != present * field.stride + len(index):
        raise DataError(f"{path} is missing or cut short: {remedy}")
    file, stored = ShardFile(path), bytearray(len(index))
    if file.read(present * field.stride, [memoryview(stored)]) != len(index) or bytes(stored) != index:
        raise DataError(f"{path} has an index that this reader does not know: {remedy}")
    return file
