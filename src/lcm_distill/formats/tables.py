# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownParameterType=false
"""Tables of records: JSON lines, CSV and Parquet. A malformed record costs no other."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.regular_files import open_regular, read_regular
from lcm_distill.formats.text import (
    MAX_TABLE_BYTES,
    decode_text,
    parse_object,
    read_lines,
)

_PAIR = re.compile(r'"([^"\\]+)"\s*:\s*("(?:[^"\\]|\\.)*")')
"""A name and a text within what should have been JSON."""


class MalformedRecord(ValueError):
    """A record that cannot be read as a whole.

    Attributes:
        texts: what seems to be in its fields, with the names of the fields. Nothing here can be relied on.
    """

    def __init__(self, reason: str, texts: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(reason)
        self.texts = tuple(texts)

    def texts_of(self, field: str) -> list[str]:
        """What a field may contain, whose name may lead through nested records: `a.b` is `b` there."""
        return [text for name, text in self.texts if name in (field, field.rpartition(".")[2])]


Fields = dict[str, Any] | ValueError
"""The fields of a record, or why it has none."""
Numbered = Iterator[tuple[int, Fields]]
"""Records after the number of the line, or row of a table, that each begins at."""


def numbered_lines(lines: Iterable[bytes | ValueError]) -> Numbered:
    """The records of JSON lines, as `read_lines` gives them; blank lines are none."""
    for number, line in enumerate(lines, start=1):
        if isinstance(line, ValueError):
            yield number, line
        elif line.strip():
            yield number, _parsed(line)


def _parsed(line: bytes) -> Fields:
    try:
        return parse_object(line)
    except ValueError as error:
        return MalformedRecord(str(error), _pairs(line))


def _pairs(line: bytes) -> Iterator[tuple[str, str]]:
    """Names and texts in what is no JSON object."""
    for name, text in _PAIR.findall(line.decode(errors="surrogateescape")):
        with suppress(ValueError):
            yield name, json.loads(text)


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
        reason = f"not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}"
        return MalformedRecord(reason, _readable_cells(row))


def _readable_cells(row: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """Names and texts of the columns of a row that hold text in UTF-8."""
    for name, column in zip(row.schema.names, row.columns, strict=True):
        with suppress(UnicodeDecodeError):
            if isinstance(value := column[0].as_py(), str):
                yield name, value


def json_lines(path: Path) -> Numbered:
    """The records of a file of JSON lines.

    Raises:
        OSError, ValueError: it cannot be read any further.
    """
    with open_regular(path) as file:
        yield from numbered_lines(read_lines(file))


def csv_rows(path: Path) -> Numbered:
    """The rows of a CSV file: where a quote never closes, its line alone is given up and the next one is read.

    Semicolons or tabs separate the columns of a file whose header has those and no comma.

    Raises:
        OSError, ValueError: it cannot be read at all.
    """
    # What is not text stays recognisable, so that each record is judged by itself.
    file = io.StringIO(decode_text(read_regular(path, MAX_TABLE_BYTES), errors="surrogateescape"), newline="")
    header, line, delimiter = list[str](), 1, _delimiter(file)
    while True:
        start, rows = file.tell(), csv.reader(file, strict=True, delimiter=delimiter)
        try:
            row = next(rows, None)
        except csv.Error as error:
            if not header:
                raise ValueError(f"line {line} is not CSV ({error})") from error
            file.seek(start)
            yield line, _leniently(header, file.readline(), delimiter, error)
            line += 1
            continue
        if row is None:
            return
        if not header:
            header = row
        elif len(row) > 1 or "".join(row).strip():
            yield line, _named(header, row)
        line += rows.line_num


def _leniently(header: list[str], line: str, delimiter: str, error: csv.Error) -> Fields:
    """A row that is malformed, as Python's csv and pandas read it; not if a quote never closes or fields differ."""
    with suppress(csv.Error, StopIteration):
        row = next(csv.reader([line.rstrip("\r\n") + "\n"], delimiter=delimiter))
        if len(row) == len(header) and not row[-1].endswith("\n"):  # which only a quote keeps
            return _named(header, row)
    cells = [cell.strip().strip('"') for cell in line.split(delimiter)]
    return MalformedRecord(f"not CSV ({error})", _cells(header, cells))


def _delimiter(file: io.StringIO) -> str:
    """What separates the columns of a file, which is at its beginning, as its header tells."""
    header = file.readline()
    file.seek(0)
    return next((mark for mark in ";\t" if mark in header and "," not in header), ",")


def _named(header: list[str], row: list[str]) -> Fields:
    if len(row) < len(header):
        return MalformedRecord(f"{len(row)} of {len(header)} fields", _cells(header, row))
    if len(row) > len(header):
        reason = f"{len(row)} fields where the header has {len(header)}: text with commas needs quotes"
        return MalformedRecord(reason, _cells(header, row))
    return dict(zip(header, row, strict=True))


def _cells(header: list[str], row: list[str]) -> Iterator[tuple[str, str]]:
    """What stands below each name of a header if a row is too short or long at its end, or at its beginning."""
    yield from zip(header, row, strict=False)
    yield from zip(reversed(header), reversed(row), strict=False)


def parquet_rows(path: Path) -> Numbered:
    """The rows of a Parquet file, numbered from 1.

    Raises:
        OSError, pa.ArrowException: it cannot be read any further.
    """
    with open_regular(path) as content, pq.ParquetFile(content) as file:
        batches = file.iter_batches(1_024)
        yield from enumerate((record for batch in batches for record in batch_records(batch)), start=1)
