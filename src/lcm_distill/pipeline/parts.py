# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Parquet files of a manifest: rows by task, and a footer that lists the tasks.

Which tasks are committed is read from footers alone, and a task needs no rows. Pages have checksums, so that damage is
detected.
"""

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lcm_distill.core.errors import DataError
from lcm_distill.pipeline.storage import Part, Storage, WrittenFile

TASKS = b"tasks"


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
    schema = table.schema.with_metadata({TASKS: json.dumps(footer)})
    content = pa.BufferOutputStream()
    with pq.ParquetWriter(content, schema, write_page_checksum=True) as writer:
        for entry, rows in _by_task(table, entries):
            if entry.rows:
                writer.write_table(rows.cast(schema), row_group_size=entry.rows)
    return memoryview(content.getvalue())


def read_entries(storage: Storage, name: str) -> list[Entry]:
    """The tasks of a file, from its footer.

    Raises:
        DataError: the footer cannot be read.
    """
    try:
        footer = pq.read_schema(storage.source(name)).metadata[TASKS]
        return [
            Entry(task, fingerprint, rows, quarantined, tuple(WrittenFile(*file) for file in files))
            for task, (fingerprint, rows, quarantined, files) in json.loads(footer).items()
        ]
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(storage, name) from error


def read_rows(
    storage: Storage,
    name: str,
    schema: pa.Schema,
    tasks: Container[str] | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[tuple[Entry, pa.Table]]:
    """All tasks of a file, or those of the given names, and their rows; checksums of pages are verified.

    Args:
        schema: columns of the manifest.
        columns: the columns to read; None reads all.

    Raises:
        DataError: the file is damaged.
    """
    entries = read_entries(storage, name)
    if tasks is not None and not any(entry.task in tasks for entry in entries):
        return
    try:
        # A column may be absent from older parts; one that is not in the schema has a damaged name.
        if not set(pq.read_schema(storage.source(name)).names) <= set(schema.names):
            raise _damaged(storage, name)
        table = pq.read_table(storage.source(name), columns=columns, schema=schema, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(storage, name) from error
    if table.num_rows != sum(entry.rows for entry in entries):
        raise _damaged(storage, name)
    for entry, rows in _by_task(table, entries):
        if tasks is None or entry.task in tasks:
            yield entry, rows


def written_files(table: pa.Table) -> tuple[WrittenFile, ...]:
    """The distinct files that the rows of a task name, in order of appearance."""
    named = table.select(["file", "file_bytes", "file_sha256"]).filter(pc.field("file").is_valid())
    return tuple(dict.fromkeys(WrittenFile(*row.values()) for row in named.to_pylist()))


def _by_task(table: pa.Table, entries: Sequence[Entry]) -> Iterator[tuple[Entry, pa.Table]]:
    start = 0
    for entry in entries:
        yield entry, table.slice(start, entry.rows)
        start += entry.rows


def _damaged(storage: Storage, name: str) -> DataError:
    return DataError(f"{storage.locate(name)} is damaged: `lcm verify --repair` makes it again")
