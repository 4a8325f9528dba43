# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Parquet files, of which any may be damaged: written with checksums of their pages, and read with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from lcm_distill.core.errors import DataError

UNREADABLE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError)
"""What pyarrow raises of a file that is no Parquet file, or a damaged one."""
WHOLE: Any = {"partitioning": None}
"""`key=value` in a path names no column."""
CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table with checksums of its pages, so that damage is detected."""
    pq.write_table(table, path, write_page_checksum=True)


def read_table(path: Path, remedy: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table, all columns or the given ones; `key=value` in the path is no column.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is damaged; the message names it and ends in `remedy`.
    """
    try:
        return pq.read_table(path, columns=columns, page_checksum_verification=True, **WHOLE)
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{path} is damaged: {remedy}") from error


def open_tables(paths: Sequence[Path]) -> Any:
    """The rows of several files as one dataset, which reads them when it is scanned; None without a file.

    Columns go by name; one that a file lacks is null in its rows.

    Raises:
        DataError: a file is damaged; the message names it.
    """
    if not paths:
        return None
    schemas = [_schema(path) for path in paths]
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except UNREADABLE as error:
        raise DataError(f"{paths[-1].parent} holds files whose columns do not fit together") from error
    return ds.dataset(list(map(str, paths)), schema.remove_metadata(), CHECKED)


def damaged_file(paths: Sequence[Path]) -> Path | None:
    """The first of the files that cannot be read whole."""
    for path in paths:
        try:
            read_table(path, "")
        except DataError:
            return path
    return None


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except UNREADABLE as error:
        raise DataError(f"{path} is damaged") from error
