# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""The catalog: one row per sample and one per distinct caption. Row numbers never change."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import escape
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.interruption import queries_interrupted
from lcm_distill.core.randomness import stable_hash
from lcm_distill.data.sources.interface import Annotation

SAMPLES = pa.schema(
    [("row", pa.int64()), ("sample_id", pa.string()), ("path", pa.string()),
     ("caption_row", pa.int64()), ("split", pa.string())]
)  # fmt: skip
CAPTIONS = pa.schema([("row", pa.int64()), ("caption", pa.string()), ("split", pa.string())])
RECORDS = pa.schema(
    [("position", pa.int64()), ("parent", pa.string()), ("sample_id", pa.string()), ("path", pa.string()),
     ("caption", pa.string()), ("decides", pa.string())]
)  # fmt: skip
"""Columns of the annotations that are numbered, in order of appearance; the text `decides` what is held out."""

SAMPLES_FILE, CAPTIONS_FILE = "catalog/samples.parquet", "catalog/captions.parquet"
"""Files of a cache that contain the catalog."""

BATCH = 50_000

NUMBERED = """
CREATE TEMP TABLE records AS
    SELECT *, row_number() OVER (PARTITION BY sample_id ORDER BY position) AS appearance
    FROM read_parquet($records, hive_partitioning = false);
CREATE TEMP TABLE samples AS
    SELECT $samples + row_number() OVER (ORDER BY parent, position) - 1 AS row, sample_id, path, caption, decides
    FROM records ANTI JOIN known_samples USING (sample_id) WHERE appearance = 1;
CREATE TEMP TABLE captions AS
    SELECT $captions + row_number() OVER (ORDER BY min(row)) - 1 AS row, caption, arg_min(decides, row) AS decides
    FROM samples ANTI JOIN known_captions USING (caption) GROUP BY caption;
"""
ADDRESSED = """
SELECT samples.row, sample_id, path, texts.row AS caption_row
FROM samples JOIN (SELECT row, caption FROM captions UNION ALL SELECT row, caption FROM known_captions) AS texts
USING (caption)
ORDER BY samples.row
"""
REPEATED = "SELECT path FROM records WHERE appearance > 1 ORDER BY position"
CHANGED = """
SELECT sample_id FROM records JOIN known_samples AS known USING (sample_id)
JOIN known_captions AS texts ON known.caption_row = texts.row
WHERE appearance = 1 AND (records.path <> known.path OR records.caption <> texts.caption) ORDER BY position
"""
GONE = "SELECT sample_id FROM known_samples ANTI JOIN records USING (sample_id) ORDER BY row"


@dataclass(frozen=True)
class Catalog:
    """Samples (`SAMPLES`) and distinct captions (`CAPTIONS`), each in order of row."""

    samples: pa.Table
    captions: pa.Table


EMPTY = Catalog(SAMPLES.empty_table(), CAPTIONS.empty_table())
"""The catalog of nothing."""


@dataclass(frozen=True)
class Extension:
    """A catalog, and how the annotations that it was extended by differ from it.

    Attributes:
        added: number of samples that were added.
        repeated: paths of samples that appeared again, of which the first was taken.
        changed: identifiers of samples that have another path or caption now; the catalog keeps the earlier ones.
        gone: identifiers of samples that no annotation is about any more; the catalog keeps them.
    """

    catalog: Catalog
    added: int
    repeated: list[str]
    changed: list[str]
    gone: list[str]


def build_catalog(annotations: Iterable[Annotation], valid_fraction: float, scratch: Path) -> tuple[Catalog, list[str]]:
    """Number samples and distinct captions, as `extend_catalog` does from nothing.

    Returns:
        The catalog, and the paths of samples that appeared again, of which the first was taken.
    """
    built = extend_catalog(EMPTY, annotations, valid_fraction, scratch)
    return built.catalog, built.repeated


def extend_catalog(
    known: Catalog, annotations: Iterable[Annotation], valid_fraction: float, scratch: Path
) -> Extension:
    """Number the samples and distinct captions that a catalog does not have yet, after those that it has.

    Samples are numbered in order of the parents of their paths, such as archives, and within a parent in order of
    appearance; captions in order of their first sample. The split of a caption is a function of its text, or of the
    first caption of the image that it appeared with first, so that all images of a caption are in the same split, which
    does not change when a data set grows.

    Args:
        valid_fraction: share of distinct captions that are held out.
        scratch: folder for temporary files.
    """
    import duckdb

    records = scratch / "records.parquet"
    with pq.ParquetWriter(records, RECORDS) as writer:
        for table in _tables(annotations):
            writer.write_table(table)
    values = {"records": escape(str(records)), "samples": len(known.samples), "captions": len(known.captions)}
    limits: dict[str, Any] = {"temp_directory": str(scratch), "memory_limit": "2GB"}
    with queries_interrupted(), duckdb.connect(config=limits) as database:
        database.register("known_samples", known.samples)
        database.register("known_captions", known.captions)
        for statement in NUMBERED.split(";")[:-1]:
            named = {name: value for name, value in values.items() if f"${name}" in statement}
            database.execute(statement, named)
        repeated, changed, gone = (
            [name for (name,) in database.sql(query).fetchall()] for query in (REPEATED, CHANGED, GONE)
        )
        samples = database.sql(ADDRESSED).to_arrow_table()
        captions = database.sql("FROM captions ORDER BY row").to_arrow_table()
    splits = pa.array([split_of(text.as_py(), valid_fraction) for text in captions["decides"]], pa.string())
    captions = captions.drop_columns(["decides"]).append_column("split", splits)
    captions = pa.concat_tables([known.captions, captions.cast(CAPTIONS)])
    own = captions["split"].take(samples["caption_row"])
    samples = pa.concat_tables([known.samples, samples.append_column("split", own).cast(SAMPLES)])
    added = len(samples) - len(known.samples)
    return Extension(Catalog(samples, captions), added, repeated, changed, gone)


def split_of(caption: str, valid_fraction: float) -> str:
    """The split that a caption decides: `train` or `valid`."""
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
            "decides": [annotation.first or annotation.caption for _, annotation in batch],
        }
        yield pa.table(columns, schema=RECORDS)
