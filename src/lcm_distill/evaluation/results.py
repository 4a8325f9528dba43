"""Looked-at drawings to figures: rows that say what was measured, how, and of which weights."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.config import Config
from lcm_distill.evaluation.features import Extraction
from lcm_distill.evaluation.grid import GRID_ROWS, side_by_side
from lcm_distill.evaluation.image_sets import ImageSet, checkpoint_sha256
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.evaluation.references import Reference, allows_few
from lcm_distill.metrics.protocols import find_protocol, measure
from lcm_distill.models.networks import teacher_path
from lcm_distill.pipeline.atomic import commit_file
from lcm_distill.pipeline.run_folder import RunFolder, source_commit
from lcm_distill.report.guidance import guidance_chart, guidance_text
from lcm_distill.report.write_up import write_up

Rows = Sequence[Mapping[str, Any]]

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


def figures(image_set: ImageSet, references: Sequence[Reference]) -> list[dict[str, Any]]:
    """Rows of `METRICS` for a drawing that every protocol has looked at."""
    sampling, seconds = image_set.sampling, image_set.table()["seconds"].to_numpy()
    shared = {
        "model": sampling.model, "sampler": sampling.sampler, "steps": sampling.steps, "sigmas": list(sampling.sigmas),
        "guidance": sampling.guidance, "images": len(seconds), "network_evaluations": sampling.evaluations,
        "seconds_per_image": float(seconds.mean()), "checkpoint": str(image_set.checkpoint),
        "checkpoint_sha256": image_set.checkpoint_sha256, "dtype": image_set.dtype,
    }  # fmt: skip
    return [
        {**shared, **_circumstances(image_set.config, reference), "metric": metric, "value": value}
        for reference in references
        for metric, value in _values(Extraction(image_set, reference.extractor), reference).items()
    ]


def floor_figure(config: Config, reference: Reference) -> dict[str, Any]:
    """Row of `METRICS` that says how far real images of other captions are from those of the captions drawn."""
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
        "seed": config.generation_seed,
        "same_noise": config.evaluate.same_noise,
        "config_fingerprint": config.fingerprint(*sections),
        "commit": source_commit(),
        "time": datetime.now(UTC),
    }


def write_results(
    config: Config,
    run: RunFolder,
    image_sets: Sequence[ImageSet],
    references: Sequence[Reference],
    prompts: Sequence[Prompt],
) -> None:
    """Figures, the grid, and figures against the guidance scale, of finished drawings."""
    rows = [
        *(row for image_set in image_sets for row in figures(image_set, references)),
        *(floor_figure(config, reference) for reference in references if reference.floor is not None),
    ]
    table = merged_metrics(run.metrics, rows)
    commit_file(run.metrics, lambda path: pq.write_table(table, path))
    first = [image_set for image_set in image_sets if image_set.sampling.guidance == config.evaluate.guidance[0]]
    grid = side_by_side(first, prompts[:GRID_ROWS])
    commit_file(run.grid, lambda path: grid.save(path, format="PNG"))
    if len(config.evaluate.guidance) > 1 and rows:
        write_guidance(config, run, table.to_pylist(), rows)


def write_guidance(config: Config, run: RunFolder, known: Rows, measured: Rows) -> None:
    """`guidance.parquet`, `.md` and `.png`: what is known of today's checkpoints, measured as `measured` was."""
    harnesses = {tuple(row[name] for name in HARNESS) for row in measured}
    checkpoints = {checkpoint_sha256(path) for path in (run.student, teacher_path(config)) if path.is_file()}
    rows = [
        row
        for row in known
        if row["checkpoint_sha256"] in checkpoints and tuple(row[name] for name in HARNESS) in harnesses
    ]
    trained, notice = config.distill.guidance_range, config.stand_ins
    table = pa.Table.from_pylist(rows, schema=METRICS)
    write_up(run.guidance, table, guidance_text(rows, trained, notice), guidance_chart(rows, trained, notice))


def merged_metrics(path: Path, rows: Rows) -> pa.Table:
    """The rows, after those already at `path` that they do not replace; what an older version wrote is left behind."""
    kept = (read_metrics(path) if path.is_file() else None) or []
    merged = {tuple(str(row.get(name)) for name in IDENTITY): row for row in [*kept, *rows]}
    return pa.Table.from_pylist(list(merged.values()), schema=METRICS)
