# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
"""Metadata files of a folder of images, as the hub's `imagefolder` format has them: JSON lines, CSV or Parquet."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from lcm_distill.core.errors import one_line
from lcm_distill.core.words import counted
from lcm_distill.formats.tables import Fields, Numbered, csv_rows, json_lines, parquet_rows

METADATA: dict[str, Callable[[Path], Numbered]] = {
    "metadata.jsonl": json_lines,
    "metadata.csv": csv_rows,
    "metadata.parquet": parquet_rows,
}
"""Names of metadata files, and what reads them."""


def read_metadata(path: Path) -> Iterator[tuple[str, Fields]]:
    """Every record of a file of `METADATA`, after the line that it begins at: `metadata.csv:3`; of Parquet, its row.

    Where a file is damaged, the file and the reason follow.
    """
    records = 0
    try:
        for number, fields in METADATA[path.name](path):
            records += 1
            yield f"{path.name}:{number}", fields
    except (OSError, ValueError, pa.ArrowException) as error:
        yield path.name, ValueError(f"damaged file after {counted(records, 'record')}: {one_line(error)}")
