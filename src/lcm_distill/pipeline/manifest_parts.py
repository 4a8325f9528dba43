# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Parquet files of a manifest: rows by task, and a footer that lists the tasks.

Which tasks are committed is read from footers alone, and a task needs no rows. The list has a hash of its own; rows are
read from files whose hash is verified whole (`pipeline.hashed_parquet`).
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.errors import DataError
from lcm_distill.core.hashing import bytes_sha256
from lcm_distill.core.io_errors import require_reachable
from lcm_distill.core.json import parse_json
from lcm_distill.pipeline.hashed_parquet import SEAL, UNREADABLE, decode_sealed, encode_sealed, file_metadata
from lcm_distill.pipeline.storage import Part, Storage, WrittenFile

TASKS = b"tasks"
TASKS_SHA256 = b"tasks_sha256"
REMEDY = "delete it, and the command that wrote it makes it again"
"""What to do about a damaged part of a manifest, where its owner knows nothing better."""


@dataclass(frozen=True)
class Entry:
    """The entry of a task in a footer: its number of rows, how many of those are quarantined, and its files."""

    task: str
    fingerprint: str
    rows: int
    quarantined: int
    files: tuple[WrittenFile, ...]


def encode_part(table: pa.Table, entries: Sequence[Entry]) -> Part:
    """The content of a file: the rows of `entries`, which follow each other in `table`, with a row group per task."""
    footer = {
        entry.task: [
            entry.fingerprint,
            entry.rows,
            entry.quarantined,
            [[file.name, file.size, file.sha256] for file in entry.files],
        ]
        for entry in entries
    }
    tasks = json.dumps(footer).encode()
    schema = table.schema.with_metadata({TASKS: tasks, TASKS_SHA256: bytes_sha256([tasks])})
    return encode_sealed(schema, (rows for _, rows in _by_task(table, entries)))


def read_entries(storage: Storage, name: str, remedy: str = REMEDY) -> list[Entry]:
    """The tasks of a file, from its footer.

    Args:
        remedy: what to do about a damaged file, for the message.

    Raises:
        DataError: the footer cannot be read, or its list of tasks is not what was written.
    """
    try:
        return _entries(file_metadata(storage.source(name)))
    except UNREADABLE as error:
        raise _damaged(storage, name, remedy, error) from error


def read_rows(
    storage: Storage,
    name: str,
    schema: pa.Schema,
    tasks: Container[str] | None = None,
    columns: Sequence[str] | None = None,
    remedy: str = REMEDY,
) -> Iterator[tuple[Entry, pa.Table]]:
    """All tasks of a file, or those of the given names, and their rows; the hash of the file is verified.

    Args:
        schema: columns of the manifest.
        columns: the columns to read; None reads all.
        remedy: as for `read_entries`.

    Raises:
        DataError: the file is damaged.
    """
    if tasks is not None and not any(entry.task in tasks for entry in read_entries(storage, name, remedy)):
        return
    try:
        found = decode_part(storage.read(name), schema, columns)
    except UNREADABLE as error:
        raise _damaged(storage, name, remedy, error) from error
    for entry, rows in found:
        if tasks is None or entry.task in tasks:
            yield entry, rows


def decode_part(
    content: bytes, schema: pa.Schema, columns: Sequence[str] | None = None
) -> list[tuple[Entry, pa.Table]]:
    """The tasks of a file, and the rows of each.

    Raises:
        pa.ArrowException, OSError, ValueError, TypeError, KeyError: the file is damaged.
    """
    entries = _entries(file_metadata(pa.BufferReader(content)))
    # A column may be absent from older parts; one that is not in the schema has a damaged name.
    if not set(pq.read_schema(pa.BufferReader(content)).names) <= set(schema.names):
        raise ValueError("it has a column that manifests do not have")
    table = decode_sealed(content, columns, schema)
    if table.num_rows != sum(entry.rows for entry in entries):
        raise ValueError("it does not have the rows that it lists")
    return list(_by_task(table, entries))


def written_files(table: pa.Table) -> tuple[WrittenFile, ...]:
    """The distinct files that the rows of a task name, in order of appearance."""
    named = table.select(["file", "file_bytes", "file_sha256"]).filter(table["file"].is_valid())
    return tuple(dict.fromkeys(WrittenFile(*row.values()) for row in named.to_pylist()))


def _by_task(table: pa.Table, entries: Sequence[Entry]) -> Iterator[tuple[Entry, pa.Table]]:
    start = 0
    for entry in entries:
        yield entry, table.slice(start, entry.rows)
        start += entry.rows


def _entries(metadata: Mapping[bytes, bytes]) -> list[Entry]:
    """The tasks that a footer lists; parts of earlier versions have no hashes.

    Raises:
        ValueError, TypeError, KeyError: the list is damaged.
    """
    listed = metadata[TASKS]
    if (SEAL in metadata) != (TASKS_SHA256 in metadata):
        raise ValueError("one of two hashes is missing")
    if TASKS_SHA256 in metadata and bytes_sha256([listed]).encode() != metadata[TASKS_SHA256]:
        raise ValueError("the list of tasks is not what was written")
    return [
        Entry(task, fingerprint, rows, quarantined, tuple(WrittenFile(*file) for file in files))
        for task, (fingerprint, rows, quarantined, files) in parse_json(listed).items()
    ]


def _damaged(storage: Storage, name: str, remedy: str, error: Exception) -> DataError:
    """The error of a damaged file.

    Raises:
        OSError: the device or a permission kept it from being read.
    """
    require_reachable(error, storage.locate(name))
    return DataError(f"{storage.locate(name)} is damaged: {remedy}")
