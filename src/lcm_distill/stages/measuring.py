"""Looked-at drawings to figures: rows that say what was measured, how, and of which weights."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.config import Config
from lcm_distill.metrics.protocols import find_protocol, measure
from lcm_distill.pipeline.run_folder import source_commit
from lcm_distill.stages.drawing import Drawing
from lcm_distill.stages.extraction import Extraction
from lcm_distill.stages.references import Reference, allows_few

METRICS = pa.schema(
    [("model", pa.string()), ("sampler", pa.string()), ("steps", pa.int64()),
     ("sigmas", pa.list_(pa.field("element", pa.float64()))),  # called so in files
     ("guidance", pa.float64()), ("metric", pa.string()), ("value", pa.float64()), ("images", pa.int64()),
     ("protocol", pa.string()), ("extractor", pa.string()), ("extractor_sha256", pa.string()),
     ("reference", pa.string()), ("prompts", pa.string()), ("seed", pa.int64()), ("same_noise", pa.bool_()),
     ("dtype", pa.string()),
     ("network_evaluations", pa.int64()), ("seconds_per_image", pa.float64()),
     ("checkpoint", pa.string()), ("checkpoint_sha256", pa.string()), ("config_fingerprint", pa.string()),
     ("commit", pa.string()), ("time", pa.timestamp("ms", tz="UTC"))]
)  # fmt: skip
"""One row a figure. `sampler` is a teacher's solver. `prompts` and `reference` end in digits of what they hold.
`dtype` is what the images were generated in."""

WITHOUT_DTYPE = METRICS.remove(METRICS.get_field_index("dtype"))
"""Of files from before there was a choice: their images were generated in float32."""

HARNESS = ("protocol", "extractor_sha256", "reference", "prompts", "images", "seed", "same_noise")
"""Figures compare where these are equal."""

IDENTITY = ("model", "sampler", "steps", "sigmas", "guidance", "checkpoint_sha256", "dtype", "metric", *HARNESS)
"""A figure measured again replaces the one that has these in common with it."""

CAPTIONS = "caption_accuracy"


def read_metrics(path: Path) -> list[dict[str, Any]] | None:
    """Rows of a `metrics.parquet`; None of one that a version before or after wrote in another form."""
    table = pq.read_table(path)
    if table.schema.equals(WITHOUT_DTYPE):
        return [{**row, "dtype": None if row["model"] == "real" else "float32"} for row in table.to_pylist()]
    return table.to_pylist() if table.schema.equals(METRICS) else None


def figures(drawing: Drawing, references: Sequence[Reference]) -> list[dict[str, Any]]:
    """Rows of `METRICS` for a drawing that every protocol has looked at."""
    way, seconds = drawing.way, drawing.table()["seconds"].to_numpy()
    shared = {
        "model": way.model, "sampler": way.sampler, "steps": way.steps, "sigmas": list(way.sigmas),
        "guidance": way.guidance, "images": len(seconds), "network_evaluations": way.evaluations,
        "seconds_per_image": float(seconds.mean()), "checkpoint": str(drawing.checkpoint),
        "checkpoint_sha256": drawing.checkpoint_sha256, "dtype": drawing.dtype,
    }  # fmt: skip
    return [
        {**shared, **_circumstances(drawing.config, reference), "metric": metric, "value": value}
        for reference in references
        for metric, value in _values(Extraction(drawing, reference.extractor), reference).items()
    ]


def floor_figure(config: Config, reference: Reference) -> dict[str, Any]:
    """Row of `METRICS` that says how far real pictures of other captions are from those of the captions drawn."""
    figures = find_protocol(reference.extractor.protocol).figures
    return {
        "model": "real", "sampler": "none", "metric": next(one.name for one in figures if one.part == "moments"),
        "value": reference.floor, "images": reference.floor_images, **_circumstances(config, reference),
    }  # fmt: skip


def _values(extraction: Extraction, reference: Reference) -> dict[str, float]:
    """Figures by name."""
    protocol = find_protocol(extraction.extractor.protocol)
    values = measure(protocol, extraction.statistics(), reference.statistics, allows_few(protocol.name))
    if protocol.name == "shapes":
        values[CAPTIONS] = float(extraction.table()["caption_score"].to_numpy().mean())
    return values


def _circumstances(config: Config, reference: Reference) -> dict[str, Any]:
    sections = ("data", "encoders", "cache", "model", "diffusion", "engine", "distill", "evaluate")
    return {
        "protocol": reference.extractor.protocol,
        "extractor": reference.extractor.name,
        "extractor_sha256": reference.extractor.sha256,
        "reference": reference.source,
        "prompts": reference.prompts,
        "seed": config.draw_seed,
        "same_noise": config.evaluate.same_noise,
        "config_fingerprint": config.fingerprint(*sections),
        "commit": source_commit(),
        "time": datetime.now(UTC),
    }
