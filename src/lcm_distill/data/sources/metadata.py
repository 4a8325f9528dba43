# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownParameterType=false
"""Metadata files of a folder of images, as the hub's `imagefolder` format has them: JSON lines, CSV or Parquet."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.errors import one_line
from lcm_distill.core.regular_files import open_regular, read_regular
from lcm_distill.data.sources.text import (
    MAX_TABLE_BYTES,
    MAX_TEXT_BYTES,
    as_utf8,
    bounded_lines,
    decode_text,
    parse_object,
)

Fields = dict[str, Any] | ValueError
"""The fields of a record, or why it has none."""


def read_metadata(path: Path) -> Iterator[tuple[str, Fields]]:
    """Every record of a file of `METADATA`, after where it is: `metadata.csv:3`, or the file where it is damaged."""
    number = 0
    try:
        for number, fields in enumerate(METADATA[path.name](path), start=1):
            yield f"{path.name}:{number}", fields
    except (OSError, ValueError, pa.ArrowException, csv.Error) as error:
        yield path.name, ValueError(f"damaged file after {number:,} records: {one_line(error)}")


def parse_line(line: bytes | None) -> Fields:
    """A line of JSON lines, as `bounded_lines` gives it."""
    if line is None:
        return ValueError(f"a line of more than {MAX_TEXT_BYTES:,} bytes")
    try:
        return parse_object(line)
    except ValueError as error:
        return error


def batch_records(batch: pa.RecordBatch) -> Iterator[Fields]:
    """The rows of a part of a table; text that is not UTF-8 costs its own row alone."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        yield from (_only_record(batch.slice(row, 1)) for row in range(len(batch)))


def _only_record(row: pa.RecordBatch) -> Fields:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return ValueError(f"not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}")


def _json_lines(path: Path) -> Iterator[Fields]:
    with open_regular(path) as file:
        yield from map(parse_line, bounded_lines(as_utf8(file)))


def _csv_rows(path: Path) -> Iterator[Fields]:
    # Bytes that are not UTF-8 stay recognisable, so that each record is judged by itself.
    text = decode_text(read_regular(path, MAX_TABLE_BYTES), errors="surrogateescape")
    rows = csv.reader(io.StringIO(text, newline=""))
    header = next(rows, [])
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield ValueError(f"not CSV ({error})")
            continue
        if row:
            yield dict(zip(header, row, strict=False))


def _parquet_rows(path: Path) -> Iterator[Fields]:
    with open_regular(path) as content, pq.ParquetFile(content) as file:
        for batch in file.iter_batches(1_024):
            yield from batch_records(batch)


METADATA: dict[str, Callable[[Path], Iterator[Fields]]] = {
    "metadata.jsonl": _json_lines,
    "metadata.csv": _csv_rows,
    "metadata.parquet": _parquet_rows,
}
"""Names of metadata files, and what reads them."""
