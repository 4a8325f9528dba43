"""The catalog: one row a sample and one row a distinct caption. A row's number is its address for ever."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.data.journeydb import Annotation
from lcm_distill.diffusion.randomness import stable_hash

SAMPLES = pa.schema(
    [("row", pa.int64()), ("sample_id", pa.string()), ("path", pa.string()),
     ("caption_row", pa.int64()), ("split", pa.string())]
)  # fmt: skip
CAPTIONS = pa.schema([("row", pa.int64()), ("caption", pa.string()), ("split", pa.string())])


@dataclass(frozen=True)
class Catalog:
    """Samples (`SAMPLES`) and distinct captions (`CAPTIONS`), each in order of row."""

    samples: pa.Table
    captions: pa.Table


def build_catalog(annotations: Iterable[Annotation], valid_fraction: float) -> Catalog:
    """Number samples and distinct captions in order of appearance.

    A caption's split depends on its text alone, so pictures of one caption stay together and a longer data
    set moves none of them.
    """
    rows: dict[str, int] = {}
    samples = [
        {
            "row": row,
            "sample_id": annotation.sample_id,
            "path": annotation.path,
            "caption_row": rows.setdefault(annotation.caption, len(rows)),
            "split": split_of(annotation.caption, valid_fraction),
        }
        for row, annotation in enumerate(annotations)
    ]
    captions = [
        {"row": row, "caption": caption, "split": split_of(caption, valid_fraction)} for caption, row in rows.items()
    ]
    return Catalog(pa.Table.from_pylist(samples, schema=SAMPLES), pa.Table.from_pylist(captions, schema=CAPTIONS))


def split_of(caption: str, valid_fraction: float) -> str:
    """`train` or `valid`."""
    return "valid" if stable_hash(caption) < valid_fraction * 2**63 else "train"


def samples_path(cache: Path) -> Path:
    """Where a cache keeps its samples."""
    return cache / "catalog" / "samples.parquet"


def captions_path(cache: Path) -> Path:
    """Where a cache keeps its captions."""
    return cache / "catalog" / "captions.parquet"


def read_catalog(cache: Path) -> Catalog:
    """The catalog of a cache."""
    return Catalog(pq.read_table(samples_path(cache)), pq.read_table(captions_path(cache)))
