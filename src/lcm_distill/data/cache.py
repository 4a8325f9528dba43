"""The latent cache: Zarr v3 arrays whose shards are written whole and read without Zarr.

A field is one array with one row a chunk and `shard_rows` rows a shard, float16, each chunk followed by its
CRC-32C. Row i of a shard then starts at (i % shard_rows) * (row bytes + 4), which the shard's own index confirms.
"""

import functools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from lcm_distill.errors import DataError

CHECKSUM = 4
ABSENT = 2**64 - 1


@dataclass(frozen=True)
class Field:
    """One array of the cache: its name, how many rows, and the shape of a row."""

    name: str
    rows: int
    shape: tuple[int, ...]
    shard_rows: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of float16, without its checksum."""
        return 2 * int(np.prod(self.shape))

    @property
    def shards(self) -> int:
        """How many shard files hold the rows."""
        return -(-self.rows // self.shard_rows)

    def shard_path(self, cache: Path, shard: int) -> Path:
        """Where Zarr looks for a shard."""
        return cache.joinpath(self.name, "c", str(shard), *("0" for _ in self.shape))


def describe(field: Field, attributes: Mapping[str, Any]) -> bytes:
    """The field's `zarr.json`. A row that was never written reads as NaN."""
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    store: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(store),
        shape=(field.rows, *field.shape),
        chunks=(1, *field.shape),
        shards=(field.shard_rows, *field.shape),
        dtype="float16",
        fill_value=float("nan"),
        compressors=[Crc32cCodec()],
        filters=None,
        attributes=dict(attributes),
        config={"write_empty_chunks": True},
    )
    return store["zarr.json"].to_bytes()


def encode_shard(field: Field, rows: np.ndarray) -> tuple[bytes, list[int]]:
    """A shard file's bytes, and the checksum of each row.

    Args:
        rows: float16 (n, *field.shape), the shard's first n rows; only the last shard has fewer than
            `shard_rows`.
    """
    stride = field.row_bytes + CHECKSUM
    payloads = [row.tobytes() for row in np.ascontiguousarray(rows)]
    checksums = [google_crc32c.value(payload) for payload in payloads]
    body = b"".join(p + struct.pack("<I", c) for p, c in zip(payloads, checksums, strict=True))
    index = np.full((field.shard_rows, 2), ABSENT, dtype="<u8")
    index[: len(rows), 0] = np.arange(len(rows)) * stride
    index[: len(rows), 1] = stride
    tail = index.tobytes()
    return body + tail + struct.pack("<I", google_crc32c.value(tail)), checksums


class FieldReader:
    """Random access to the rows of a field, checksums verified.

    Raises:
        DataError: a shard is absent or laid out otherwise than `encode_shard` does it.
    """

    def __init__(self, cache: Path, field: Field) -> None:
        self.cache, self.field = cache, field
        self._shard = functools.cache(self._open_shard)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Rows by number, float16 (len(rows), *shape).

        Raises:
            DataError: a row's bytes do not match their checksum; the message names shard and row.
        """
        field, gathered = self.field, np.empty((len(rows), self.field.row_bytes + CHECKSUM), np.uint8)
        shards, places = np.divmod(np.asarray(rows), field.shard_rows)
        for shard in np.unique(shards):
            chosen = shards == shard
            gathered[chosen] = self._shard(int(shard))[places[chosen]]
        for row, stored in zip(rows, gathered, strict=True):
            if google_crc32c.value(stored[:-CHECKSUM].tobytes()) != int.from_bytes(
                stored[-CHECKSUM:].tobytes(), "little"
            ):
                path = field.shard_path(self.cache, int(row) // field.shard_rows)
                raise DataError(f"{path}: row {row} does not match its checksum: delete the file and precompute again")
        payload = np.ascontiguousarray(gathered[:, :-CHECKSUM])
        return payload.view(np.float16).reshape(len(rows), *field.shape)

    def _open_shard(self, shard: int) -> np.ndarray:
        field, path = self.field, self.field.shard_path(self.cache, shard)
        present = min(field.shard_rows, field.rows - shard * field.shard_rows)
        stride = field.row_bytes + CHECKSUM
        tail = 16 * field.shard_rows + CHECKSUM
        if not path.is_file() or path.stat().st_size != present * stride + tail:
            raise DataError(f"{path} is missing or cut short: delete it and precompute again")
        content = np.memmap(path, np.uint8, mode="r")
        index = content[-tail:-CHECKSUM].view("<u8").reshape(field.shard_rows, 2)
        if not np.array_equal(index[:present, 0], np.arange(present) * stride):
            raise DataError(f"{path} has rows in another order than this reader knows: precompute again")
        return content[: present * stride].reshape(present, stride)
