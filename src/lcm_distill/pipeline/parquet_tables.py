# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportAttributeAccessIssue=false
"""Many Parquet files as one table, and parts of tables.

Filters by expressions of pyarrow would import its reader of whole data sets and its query engine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.errors import DataError
from lcm_distill.core.io_errors import require_reachable
from lcm_distill.core.regular_files import read_regular
from lcm_distill.pipeline.hashed_parquet import UNREADABLE, decode_table

AT_ONCE = 2**22
"""Bytes of files up to which they are read at once: to import what reads them as they are scanned costs more memory."""


def open_tables(paths: Sequence[Path]) -> Any:
    """The rows of several files: a table, or, of many bytes, a dataset that is read when it is scanned.

    None without a file.

    Columns go by name; one that a file lacks is null in its rows.

    Raises:
        DataError: a file is damaged; the message names it.
        OSError: a file cannot be read.
    """
    if not paths:
        return None
    small = sum(path.stat().st_size for path in paths) <= AT_ONCE
    found = [_opened(path, small) for path in paths]
    try:
        if small:
            return pa.concat_tables(found, promote_options="permissive").replace_schema_metadata()
        return _dataset(paths, pa.unify_schemas(found, promote_options="permissive").remove_metadata())
    except UNREADABLE as error:
        raise DataError(f"{paths[-1].parent} holds files whose columns do not fit together") from error


def rows_with(table: pa.Table, **values: str) -> pa.Table:
    """The rows whose columns have these values."""
    import pyarrow.compute as pc  # 0.04 s and 8 MiB, which commands that only look can do without

    for column, value in values.items():
        table = table.filter(pc.equal(table[column], value))
    return table


def rows_without(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    """The rows whose column has none of these values."""
    import pyarrow.compute as pc

    return table.filter(pc.invert(pc.is_in(table[column], values)))


def _opened(path: Path, whole: bool) -> pa.Table | pa.Schema:
    try:
        return decode_table(read_regular(path)) if whole else pq.read_schema(path)
    except UNREADABLE as error:
        require_reachable(error, str(path))
        raise DataError(f"{path} is damaged") from error


def _dataset(paths: Sequence[Path], schema: pa.Schema) -> Any:
    import pyarrow.dataset as ds

    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.dataset(list(map(str, paths)), schema, ds.ParquetFileFormat(default_fragment_scan_options=options))
