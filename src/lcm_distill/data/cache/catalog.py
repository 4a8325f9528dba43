# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""The catalog: one row per sample and one per distinct caption. Row numbers never change."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import escape
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.randomness import stable_hash
from lcm_distill.data.sources.interface import Annotation

SAMPLES = pa.schema(
    [("row", pa.int64()), ("sample_id", pa.string()), ("path", pa.string()),
     ("caption_row", pa.int64()), ("split", pa.string())]
)  # fmt: skip
CAPTIONS = pa.schema([("row", pa.int64()), ("caption", pa.string()), ("split", pa.string())])
RECORDS = pa.schema(
    [("position", pa.int64()), ("parent", pa.string()), ("sample_id", pa.string()), ("path", pa.string()),
     ("caption", pa.string())]
)  # fmt: skip
"""Columns of the annotations that are numbered, in order of appearance."""

SAMPLES_FILE, CAPTIONS_FILE = "catalog/samples.parquet", "catalog/captions.parquet"
"""Files of a cache that contain the catalog."""

BATCH = 50_000

NUMBERED = """
CREATE TEMP TABLE records AS
    SELECT *, row_number() OVER (PARTITION BY sample_id ORDER BY position) AS appearance
    FROM read_parquet($records, hive_partitioning = false);
CREATE TEMP TABLE samples AS
    SELECT row_number() OVER (ORDER BY parent, position) - 1 AS row, sample_id, path, caption
    FROM records WHERE appearance = 1;
CREATE TEMP TABLE captions AS
    SELECT row_number() OVER (ORDER BY min(row)) - 1 AS row, caption
    FROM samples GROUP BY caption;
"""
ADDRESSED = """
SELECT samples.row, sample_id, path, captions.row AS caption_row
FROM samples JOIN captions USING (caption) ORDER BY samples.row
"""


@dataclass(frozen=True)
class Catalog:
    """Samples (`SAMPLES`) and distinct captions (`CAPTIONS`), each in order of row."""

    samples: pa.Table
    captions: pa.Table


def build_catalog(annotations: Iterable[Annotation], valid_fraction: float, scratch: Path) -> tuple[Catalog, list[str]]:
    """Number samples and distinct captions.

    Samples are numbered in order of the parents of their paths, such as archives, and within a parent in order of
    appearance; captions in order of their first sample. The split of a caption is a function of its text, so that all
    images of a caption are in the same split, which does not change when a data set grows.

    Args:
        valid_fraction: share of distinct captions that are held out.
        scratch: folder for temporary files.

    Returns:
        The catalog, and the identifiers of samples that appeared again, of which the first was taken.
    """
    import duckdb

    records = scratch / "records.parquet"
    with pq.ParquetWriter(records, RECORDS) as writer:
        for table in _tables(annotations):
            writer.write_table(table)
    with duckdb.connect(config={"temp_directory": str(scratch), "memory_limit": "2GB"}) as database:
        for statement in NUMBERED.split(";")[:-1]:
            database.execute(statement, {"records": escape(str(records))} if "$records" in statement else None)
        repeated = database.sql("SELECT sample_id FROM records WHERE appearance > 1 ORDER BY position").fetchall()
        samples = database.sql(ADDRESSED).to_arrow_table()
        captions = database.sql("FROM captions ORDER BY row").to_arrow_table()
    splits = pa.array([split_of(caption.as_py(), valid_fraction) for caption in captions["caption"]], pa.string())
    return Catalog(
        samples.append_column("split", splits.take(samples["caption_row"])).cast(SAMPLES),
        captions.append_column("split", splits).cast(CAPTIONS),
    ), [name for (name,) in repeated]


def split_of(caption: str, valid_fraction: float) -> str:
    """The split of a caption: `train` or `valid`."""
    return "valid" if stable_hash(caption) < valid_fraction * 2**63 else "train"


def _tables(annotations: Iterable[Annotation]) -> Iterator[pa.Table]:
    numbered = enumerate(annotations)
    while batch := list(islice(numbered, BATCH)):
        columns = {
            "position": [position for position, _ in batch],
            "parent": [annotation.path.rpartition("/")[0] for _, annotation in batch],
            "sample_id": [annotation.sample_id for _, annotation in batch],
            "path": [annotation.path for _, annotation in batch],
            "caption": [annotation.caption for _, annotation in batch],
        }
        yield pa.table(columns, schema=RECORDS)
