# The types of zarr.create_array are partial.
# pyright: reportUnknownMemberType=false
"""Zarr v3 arrays on disk, whose shards are written whole.

A field is one float16 array with one row per chunk and `shard_rows` rows per shard; each chunk is followed by its
CRC-32C. Row i starts at (i % shard_rows) * (row bytes + 4) in its shard, as the shard's index also says.
"""

import functools
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c
import numpy as np

CHECKSUM = 4
ABSENT = 2**64 - 1
DATA_TYPE = "float16"
"""Of every field, as Zarr names it."""


@dataclass(frozen=True)
class Field:
    """One array: its name, its number of rows, the shape of a row, and the rows of a shard."""

    name: str
    rows: int
    shape: tuple[int, ...]
    shard_rows: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, without its checksum."""
        return 2 * math.prod(self.shape)

    @property
    def stride(self) -> int:
        """Bytes from the start of a row to the start of the next one."""
        return self.row_bytes + CHECKSUM

    @property
    def shards(self) -> int:
        """Number of shard files."""
        return -(-self.rows // self.shard_rows)

    @property
    def metadata_name(self) -> str:
        """The file of the Zarr metadata, relative to the folder that holds the arrays."""
        return f"{self.name}/zarr.json"

    def shard_name(self, shard: int) -> str:
        """The file of a shard, relative to the same folder, as Zarr names it."""
        return "/".join([self.name, "c", str(shard), *("0" for _ in self.shape)])

    def shard_path(self, folder: Path, shard: int) -> Path:
        """The path of a shard of an array in a folder."""
        return folder / self.shard_name(shard)


def describe(field: Field, attributes: Mapping[str, Any]) -> bytes:
    """The content of the field's `zarr.json`. A row that was never written reads as NaN."""
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    store: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(store),
        shape=(field.rows, *field.shape),
        chunks=(1, *field.shape),
        shards=(field.shard_rows, *field.shape),
        dtype=DATA_TYPE,
        fill_value=float("nan"),
        compressors=[Crc32cCodec()],
        filters=None,
        attributes=dict(attributes),
        config={"write_empty_chunks": True},
    )
    return store["zarr.json"].to_bytes()


def encode_shard(field: Field, rows: np.ndarray) -> tuple[list[bytes | memoryview], list[int]]:
    """The content of a shard file, in parts that share the memory of `rows`, and the CRC-32C of each row.

    Args:
        rows: float16 (n, *field.shape), the shard's first n rows; only the last shard has fewer than `shard_rows`.
    """
    payloads = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    checksums = [crc32c.crc32c(payload.data) for payload in payloads]
    parts: list[bytes | memoryview] = []
    for payload, checksum in zip(payloads, checksums, strict=True):
        parts += [payload.data, struct.pack("<I", checksum)]
    return [*parts, encode_index(field, len(rows))], checksums


def broken_rows(field: Field, content: bytes, checksums: Sequence[int]) -> Iterator[tuple[int | None, str]]:
    """Damage in a shard file of the right length: the row within the shard (None: the index), and a description.

    Args:
        content: of the file.
        checksums: CRC-32C of each row as recorded when the shard was written.
    """
    rows = np.frombuffer(content, np.uint8, len(checksums) * field.stride).reshape(-1, field.stride)
    if content[rows.size :] != encode_index(field, len(checksums)):
        yield None, "no row can be read: the shard's index is damaged"
        return
    for number, (row, recorded) in enumerate(zip(rows, checksums, strict=True)):
        computed = crc32c.crc32c(row[: field.row_bytes].data)
        if computed != int.from_bytes(row[field.row_bytes :], "little"):
            yield number, "does not match the CRC-32C behind it"
        elif computed != recorded:
            yield number, "does not match the manifest's checksum"


def decode_rows(field: Field, content: bytes, count: int) -> list[tuple[int, np.ndarray] | None]:
    """CRC-32C and content of the first `count` rows of a shard, as far as it has them; None for a damaged row.

    Args:
        content: of the shard's file, which may be damaged or cut short.
    """
    whole = min(count, len(content) // field.stride)
    return [_decode_row(field, content[place * field.stride : (place + 1) * field.stride]) for place in range(whole)]


def _decode_row(field: Field, content: bytes) -> tuple[int, np.ndarray] | None:
    payload, checksum = content[: field.row_bytes], int.from_bytes(content[-CHECKSUM:], "little")
    if crc32c.crc32c(payload) != checksum:
        return None
    return checksum, np.frombuffer(payload, np.float16).reshape(field.shape)


@functools.lru_cache(maxsize=8)
def encode_index(field: Field, present: int) -> bytes:
    """The end of a shard file with its first `present` rows: offset and size of each row, and their CRC-32C."""
    index = np.full((field.shard_rows, 2), ABSENT, dtype="<u8")
    index[:present, 0] = np.arange(present) * field.stride
    index[:present, 1] = field.stride
    table = index.tobytes()
    return table + struct.pack("<I", crc32c.crc32c(table))
