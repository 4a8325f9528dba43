# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Parquet files that tell whether they are what was written: their footer holds the SHA-256 of the whole file.

The hash is that of the file with `BLANK` in its place. Any reader of Parquet opens such a file; one that was written
without a hash, by an earlier version, is read as it is.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.errors import DataError
from lcm_distill.core.hashing import bytes_sha256
from lcm_distill.core.io_errors import require_reachable
from lcm_distill.core.regular_files import read_regular

SEAL = b"sha256"
"""Key of the hash in the file's metadata."""
BLANK = b"(SHA-256 of this file, computed with these words in its place)".ljust(64, b".")

THREADED = 2**20
"""Bytes from which on a file is decoded in several threads: those cost a small one more memory than they save time."""

UNREADABLE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError)
"""Errors of pyarrow for a damaged file."""


def encode_sealed(schema: pa.Schema, groups: Iterable[pa.Table]) -> bytearray:
    """The content of a Parquet file with a row group for each table; empty tables have none.

    Args:
        schema: of the file; its metadata is kept.
    """
    schema = schema.with_metadata({**(schema.metadata or {}), SEAL: BLANK})
    stream = pa.BufferOutputStream()
    with pq.ParquetWriter(stream, schema, write_page_checksum=True) as writer:
        for rows in groups:
            if len(rows):
                writer.write_table(rows.cast(schema), row_group_size=len(rows))
    content = bytearray(memoryview(stream.getvalue()))
    place = content.rindex(BLANK)  # the file's metadata follows everything that values can be in
    content[place : place + len(BLANK)] = bytes_sha256([content]).encode()
    return content


def encode_table(table: pa.Table) -> bytearray:
    """The content of a Parquet file with one table."""
    return encode_sealed(table.schema, [table])


def file_metadata(source: Path | pa.BufferReader) -> dict[bytes, bytes]:
    """Keys and values of a file's footer. Those of the schema that pyarrow reads are another copy, without the hash.

    Raises:
        pa.ArrowException, OSError: the footer cannot be read.
    """
    return pq.read_metadata(source).metadata or {}


def is_intact(content: bytes) -> bool:
    """Whether a Parquet file is what was written, as far as it tells: one without a hash is believed.

    Raises:
        pa.ArrowException, OSError: its footer cannot be read.
    """
    seal = file_metadata(pa.BufferReader(content)).get(SEAL)
    if seal is None:
        return True
    place = content.rfind(seal)
    if len(seal) != len(BLANK) or place < 0:
        return False
    view = memoryview(content)
    return bytes_sha256([view[:place], BLANK, view[place + len(BLANK) :]]).encode() == seal


def decode_sealed(content: bytes, columns: Sequence[str] | None = None, schema: pa.Schema | None = None) -> pa.Table:
    """The rows of a Parquet file, whose hash and pages are verified.

    Args:
        columns: those to read; None reads all.
        schema: to read the file with; None takes its own.

    Raises:
        pa.ArrowException, OSError, ValueError, TypeError, KeyError: the file is damaged.
    """
    if not is_intact(content):
        raise ValueError("the file is not what was written")
    return decode_table(content, columns, schema)


def decode_table(content: bytes, columns: Sequence[str] | None = None, schema: pa.Schema | None = None) -> pa.Table:
    """The rows of a Parquet file, whose pages are verified.

    `pq.read_table` would import pyarrow's reader of whole data sets and its query engine.

    Args:
        columns: those to read; None reads all.
        schema: to read the file with: a column that the file lacks is null in its rows; None takes the file's own.

    Raises:
        pa.ArrowException, OSError, ValueError, TypeError, KeyError: the file is damaged.
    """
    with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
        table = file.read(columns, use_threads=len(content) >= THREADED)
    if schema is None:
        return table if columns is None else table.select(columns)
    wanted = pa.schema([schema.field(name) for name in columns or schema.names], table.schema.metadata)
    return pa.table([_column(table, field) for field in wanted], wanted)


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    found = table[field.name]
    return found if found.type == field.type else found.cast(field.type)


def read_table(path: Path, remedy: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file on disk.

    Args:
        remedy: what to do about a damaged one, for the message.

    Raises:
        DataError: it is damaged.
        OSError: it is not there, or the device or a permission keeps it from being read.
    """
    try:
        return decode_sealed(read_regular(path), columns)
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        require_reachable(error, str(path))
        raise DataError(f"{path} is damaged: {remedy}") from error
