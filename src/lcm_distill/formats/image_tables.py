# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""Parquet files with a column of images: bytes, or the hub's records of bytes and a path."""

from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.errors import UserError
from lcm_distill.core.regular_files import open_regular

BATCH_ROWS = 256
"""Rows that are read at once: their images are in memory together."""
DAMAGE = (pa.ArrowException, OSError, ValueError, NotImplementedError)
"""Exceptions of reading a damaged file."""


def has_paths(kind: pa.DataType) -> bool:
    """Whether a column of images may have paths in the place of bytes."""
    return pa.types.is_struct(kind) and any(field.name == "path" for field in kind)


def field_values(file: pq.ParquetFile, column: str) -> Iterator[tuple[int, Any]]:
    """The only value of each record of a column of records, of which `column` names one field, by row."""
    values = (value for batch in file.iter_batches(columns=[column]) for value in batch[0].to_pylist())
    yield from ((row, None if value is None else next(iter(value.values()))) for row, value in enumerate(values))


def rows_without_bytes(
    file: pq.ParquetFile, column: str, wanted: Collection[int], all_groups: bool = False
) -> dict[int, Any]:
    """Those of the rows whose image is null or has no bytes, with the path that it has instead.

    Args:
        all_groups: read groups of rows as well whose statistics tell of no null and no image without bytes; where the
            latter are among images of more than some kB, statistics do not tell.
    """
    first, found = 0, dict[int, Any]()
    for group in range(file.num_row_groups if wanted else 0):
        known = file.metadata.row_group(group)
        here = [row for row in range(known.num_rows) if first + row in wanted]
        if here and (all_groups or _may_lack(known, column)):
            for row, content in image_cells(file, column, here, [group]):
                own, path = image_parts(content)
                found |= {} if own else {first + row: path}
        first += known.num_rows
    return found


def _may_lack(group: pq.RowGroupMetaData, column: str) -> bool:
    columns = (group.column(number) for number in range(group.num_columns))
    own = [known.statistics for known in columns if known.path_in_schema in (column, f"{column}.bytes")]
    return not all(known is not None and known.has_null_count and _are_whole(known) for known in own)


def _are_whole(known: Any) -> bool:
    """Whether statistics tell of no null, and do not tell of an image without bytes."""
    return known.null_count == 0 and not (known.has_min_max and not known.min)


def image_parts(content: Any) -> tuple[Any, Any]:
    """The bytes and the path of an image, of which a column of bytes has no path."""
    return (content.get("bytes"), content.get("path")) if isinstance(content, dict) else (content, None)


def image_cells(
    file: pq.ParquetFile, column: str, wanted: Iterable[int], groups: list[int] | None = None
) -> Iterator[tuple[int, Any]]:
    """Those of the rows, of the file or of groups of it, that are wanted now, with what their image's column has."""
    first, rows = 0, set(wanted)
    for batch in file.iter_batches(BATCH_ROWS, groups, [column]):
        here = sorted(row for row in range(first, first + len(batch)) if row in rows)
        for row in here:
            yield row, batch[0][row - first].as_py()
        first += len(batch)


@contextmanager
def open_table(path: Path) -> Generator[pq.ParquetFile]:
    """A Parquet file, open for reading.

    Raises:
        OSError, pa.ArrowException: it is not there, or none.
    """
    with open_regular(path) as content, pq.ParquetFile(content) as file:
        yield file


def image_column(schema: pa.Schema, chosen: str | None) -> str:
    """The chosen column, or the only one of bytes or of the hub's `{bytes, path}`.

    Raises:
        UserError: there is no such column, or several; the message lacks the name of the file.
    """
    found = [field.name for field in schema if _holds_images(field.type) and chosen in (None, field.name)]
    if len(found) == 1:
        return found[0]
    if chosen is not None:
        raise UserError(f"has no column {chosen} of bytes: set data.image_column to one that it has")
    if not found:
        raise UserError("has 0 columns of bytes: set data.root to a folder of Parquet files that hold images")
    columns = ", ".join(found)
    raise UserError(f"has {len(found)} columns of bytes ({columns}): name that of images with --image-column")


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
