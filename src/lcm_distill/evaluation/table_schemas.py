# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""The tables of an evaluation: image sets, scores of captions, and `metrics.parquet`."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from lcm_distill.pipeline.hashed_parquet import read_table

IMAGE_COLUMNS = pa.schema(
    [("image_id", pa.int64()), ("caption", pa.string()), ("status", pa.string()), ("seconds", pa.float64())]
)  # fmt: skip
"""One row per image; the manifest's own columns name its file. `seconds` is its share of its shard's generation time,
with decoding and without writing."""

SCORE_COLUMNS = pa.schema(
    [("image_id", pa.int64()), ("caption", pa.string()), ("picture", pa.string()), ("status", pa.string()),
     ("caption_score", pa.float64())]
)  # fmt: skip
"""One row an image. `picture` is its file, below the run's `evaluate`. `caption_score`: how well the image shows its
caption: a cosine for CLIP; 1 or 0 for `shapes`; null where the protocol scores no captions."""

METRICS = pa.schema(
    [("model", pa.string()), ("sampler", pa.string()), ("steps", pa.int64()),
     ("sigmas", pa.list_(pa.field("element", pa.float64()))),  # called so in files
     ("guidance", pa.float64()), ("metric", pa.string()), ("value", pa.float64()), ("images", pa.int64()),
     ("protocol", pa.string()), ("extractor", pa.string()), ("extractor_sha256", pa.string()),
     ("reference", pa.string()), ("prompts", pa.string()), ("seed", pa.uint64()), ("same_noise", pa.bool_()),
     ("dtype", pa.string()),
     ("network_evaluations", pa.int64()), ("seconds_per_image", pa.float64()),
     ("checkpoint", pa.string()), ("checkpoint_sha256", pa.string()), ("config_fingerprint", pa.string()),
     ("commit", pa.string()), ("time", pa.timestamp("ms", tz="UTC")), ("warning", pa.string())]
)  # fmt: skip
"""One row a figure. `model`: one of `evaluate.models`, or `real`. `sampler` is a teacher's solver. `checkpoint_sha256`
is the hash of the checkpoint's tensors, see `models.checkpoint_identity`; of an untrained student, whose `checkpoint`
is its teacher's, a hash of that. `prompts` and `reference` end in digits of a hash of their content. `dtype` is what
the images were generated in. `warning` says why a figure does not compare with published ones, and is null where it
does."""

LATER = ("dtype", "warning")
"""Columns that older files lack; their images were generated in float32."""

HARNESS = ("protocol", "extractor_sha256", "reference", "prompts", "images", "seed", "same_noise")
"""Figures compare where these columns are equal."""

IDENTITY = ("model", "sampler", "steps", "sigmas", "guidance", "checkpoint_sha256", "dtype", "metric", *HARNESS)
"""A new figure replaces one that has these columns in common with it."""


def read_metrics(path: Path) -> list[dict[str, Any]] | None:
    """Rows of a `metrics.parquet`; None for one with the columns of a version that is neither this nor an older one.

    Raises:
        DataError: the file is damaged.
    """
    table = read_table(path, f"delete it, and `lcm evaluate --run {path.parent}` writes it again")
    missing = [name for name in METRICS.names if name not in table.column_names]
    if not set(missing) <= set(LATER) or not set(table.column_names) <= set(METRICS.names):
        return None
    rows = table.to_pylist()
    if "dtype" in missing:
        rows = [{**row, "dtype": None if row["model"] == "real" else "float32"} for row in rows]
    return [{name: row.get(name) for name in METRICS.names} for row in rows]
