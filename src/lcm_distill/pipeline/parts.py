# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Parquet files of a manifest: rows by task, and a footer that says which tasks they are.

The footer's list makes "which tasks are done" a matter of footers alone, and keeps tasks without a single row. Pages
carry checksums, so that a damaged file is named and never believed.
"""

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lcm_distill.errors import DataError

TASKS = b"tasks"


@dataclass(frozen=True)
class FileRecord:
    """A file that a task wrote: its name below the manifest's root, its size and its hex SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """What a footer says of one task; `rows` is how many rows of the file are its own."""

    task: str
    fingerprint: str
    rows: int
    files: tuple[FileRecord, ...]


def write_part(path: Path, table: pa.Table, entries: Sequence[Entry]) -> None:
    """Write the rows of `entries`, one after the other in `table`, a row group a task."""
    footer = {
        entry.task: [entry.fingerprint, entry.rows, [[file.name, file.size, file.sha256] for file in entry.files]]
        for entry in entries
    }
    schema = table.schema.with_metadata({TASKS: json.dumps(footer)})
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for entry, rows in _by_task(table, entries):
            if entry.rows:
                writer.write_table(rows.cast(schema), row_group_size=entry.rows)


def read_entries(path: Path) -> list[Entry]:
    """The tasks of a file, from its footer.

    Raises:
        DataError: the footer cannot be read.
    """
    try:
        schema = pq.read_schema(path)
        footer = (schema.metadata or {}).get(TASKS)
        if footer is None:
            return [_entry_of_first_version(path, schema)]
        return [
            Entry(task, fingerprint, rows, tuple(FileRecord(*file) for file in files))
            for task, (fingerprint, rows, files) in json.loads(footer).items()
        ]
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path) from error


def read_rows(path: Path, schema: pa.Schema, tasks: Container[str] | None = None) -> Iterator[tuple[Entry, pa.Table]]:
    """All tasks of a file, or those of the given names, and their rows, every page's checksum verified.

    Raises:
        DataError: the file is not the one that was written.
    """
    entries = read_entries(path)
    if tasks is not None and not any(entry.task in tasks for entry in entries):
        return
    try:
        # A column may be absent from older parts; one that nobody writes has a damaged name.
        if not set(pq.read_schema(path).names) <= set(schema.names):
            raise _damaged(path)
        table = pq.read_table(path, schema=schema, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path) from error
    if table.num_rows != sum(entry.rows for entry in entries):
        raise _damaged(path)
    for entry, rows in _by_task(table, entries):
        if tasks is None or entry.task in tasks:
            yield entry, rows


def file_records(table: pa.Table) -> tuple[FileRecord, ...]:
    """The distinct files that rows name, in order of appearance."""
    named = table.select(["file", "file_bytes", "file_sha256"]).filter(pc.field("file").is_valid())
    return tuple(dict.fromkeys(FileRecord(*row.values()) for row in named.to_pylist()))


def _by_task(table: pa.Table, entries: Sequence[Entry]) -> Iterator[tuple[Entry, pa.Table]]:
    start = 0
    for entry in entries:
        yield entry, table.slice(start, entry.rows)
        start += entry.rows


def _entry_of_first_version(path: Path, schema: Any) -> Entry:
    """Parts once held one task and only its fingerprint in the footer; caches made so go on."""
    table = pq.read_table(path, columns=["file", "file_bytes", "file_sha256"])
    return Entry(path.stem, schema.metadata[b"fingerprint"].decode(), table.num_rows, file_records(table.slice(0, 1)))


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged: `lcm verify --repair` makes it again")
