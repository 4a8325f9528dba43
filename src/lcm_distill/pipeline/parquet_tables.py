# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Many Parquet files as one table, which is read when it is scanned."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from lcm_distill.core.errors import DataError
from lcm_distill.pipeline.hashed_parquet import UNREADABLE

CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


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


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except UNREADABLE as error:
        raise DataError(f"{path} is damaged") from error
