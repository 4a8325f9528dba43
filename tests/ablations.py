"""Ablations: their settings and rows."""

import duckdb

from lcm_distill.pipeline.run_folder import RunFolder
from tests.conftest import SMALL

ONE_TEACHER = "evaluate.teacher=[['heun', 3]]"
SMALL_CHAIN = [*SMALL, ONE_TEACHER]


def rows_of(run: RunFolder) -> list[dict]:
    """All rows of `ablation.parquet`."""
    found = duckdb.sql(f"FROM '{run.ablation}.parquet'")
    assert found is not None
    return found.to_arrow_table().to_pylist()
