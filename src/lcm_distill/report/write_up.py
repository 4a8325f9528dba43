# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""A result in three forms: Parquet for queries, Markdown to read, a chart to look at."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from lcm_distill.pipeline.atomic_writes import commit_bytes, commit_file
from lcm_distill.pipeline.hashed_parquet import encode_table

SUFFIXES = (".png", ".md", ".parquet")


def write_up(stem: Path, table: pa.Table, text: str, draw_chart: Callable[[Path], None]) -> None:
    """Commit `stem` with the suffixes `.png`, `.md` and `.parquet`, in this order.

    Args:
        draw_chart: writes the chart, a PNG file, to the path it is given.
    """
    commit_file(stem.with_suffix(".png"), draw_chart)
    commit_bytes(stem.with_suffix(".md"), text.encode())
    commit_bytes(stem.with_suffix(".parquet"), encode_table(table))
