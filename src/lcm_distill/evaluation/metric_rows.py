# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""Rows of figures: what was measured, under which protocol, on images of which weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcm_distill.config import Config
from lcm_distill.evaluation.features import FeatureSet
from lcm_distill.evaluation.image_sets import ImageSet
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.evaluation.prompts import repetition
from lcm_distill.evaluation.reference_selection import Reference
from lcm_distill.evaluation.table_schemas import IDENTITY, METRICS, read_metrics
from lcm_distill.metrics.metric_definitions import TEACHER_DISTANCE
from lcm_distill.metrics.protocol import measure
from lcm_distill.models.checkpoint_identity import earlier_sha256
from lcm_distill.pipeline.run_folder import source_commit

Rows = Sequence[Mapping[str, Any]]

FINGERPRINTED = ("data", "encoders", "cache", "model", "diffusion", "engine", "distill", "evaluate")
"""Sections of the configuration in `config_fingerprint`."""


def merged_metrics(path: Path, rows: Rows) -> pa.Table:
    """The rows, after those at `path` that they do not replace; rows of another version's schema are dropped."""
    kept = _identified((read_metrics(path) if path.is_file() else None) or [], rows)
    merged = {tuple(str(row.get(name)) for name in IDENTITY): row for row in [*kept, *rows]}
    return pa.Table.from_pylist(list(merged.values()), schema=METRICS)


def _identified(kept: Rows, rows: Rows) -> Rows:
    """Kept rows; where an earlier version identified a checkpoint of the new rows, with its present identity."""
    present = {_file(row): row["checkpoint_sha256"] for row in rows if row.get("checkpoint")}

    def is_earlier(row: Mapping[str, Any]) -> bool:
        other = _file(row) in present and row["checkpoint_sha256"] != present[_file(row)]
        return other and row["checkpoint_sha256"] == earlier_sha256(Path(row["checkpoint"]))

    return [{**row, "checkpoint_sha256": present[_file(row)]} if is_earlier(row) else row for row in kept]


def _file(row: Mapping[str, Any]) -> tuple[str, str]:
    """A row's checkpoint, and as which model it was used: teacher and untrained student have the same."""
    return row["checkpoint"], row["model"]


def metric_rows(image_set: ImageSet, references: Sequence[Reference]) -> list[dict[str, Any]]:
    """Rows of `METRICS` for an image set whose features are extracted under the protocol of every reference.

    Raises:
        UserError: there are too few images.
    """
    shared = _made(image_set)
    return [
        {
            **shared, **_circumstances(image_set.config, reference), "metric": metric, "value": value,
            "warning": _warning(reference, metric, shared["images"], image_set.prompts),
        }
        for reference in references
        for metric, value in _values(image_set, reference).items()
    ]  # fmt: skip


def _made(image_set: ImageSet) -> dict[str, Any]:
    """The columns that say how images were generated."""
    sampling, seconds = image_set.sampling, image_set.table()["seconds"].to_numpy()
    return {
        "model": sampling.model, "sampler": sampling.sampler.name, "steps": sampling.steps,
        "sigmas": list(sampling.sigmas), "guidance": sampling.guidance, "images": len(seconds),
        "network_evaluations": sampling.evaluations, "seconds_per_image": float(seconds.mean()),
        "checkpoint": str(image_set.checkpoint), "checkpoint_sha256": image_set.checkpoint_sha256,
        "dtype": image_set.dtype,
    }  # fmt: skip


def teacher_distance_rows(image_sets: Sequence[ImageSet], references: Sequence[Reference]) -> list[dict[str, Any]]:
    """Rows of `METRICS` with the Fréchet distance of a student's images to the teacher's own of the same captions.

    The reference are those of the first of the teacher's samplings at the same guidance scale; without one, no row.

    Args:
        references: only their protocols matter, those that have a Fréchet distance.
    """
    teachers: dict[float, ImageSet] = {}
    for image_set in image_sets:
        if image_set.sampling.model == "teacher":
            teachers.setdefault(image_set.sampling.guidance, image_set)
    return [
        _teacher_distance_row(image_set, teacher, reference)
        for reference in references
        if reference.extractor.traits.frechet_figure
        for image_set in image_sets
        if image_set.sampling.model != "teacher" and (teacher := teachers.get(image_set.sampling.guidance))
    ]


def _teacher_distance_row(image_set: ImageSet, teacher: ImageSet, reference: Reference) -> dict[str, Any]:
    ours, theirs = (FeatureSet(images, reference.extractor).statistics() for images in (image_set, teacher))
    source = f"{teacher.sampling.title}:{teacher.fingerprint[:12]}"
    own = replace(reference, statistics=None, source=source)  # of no real images, whose number a warning would name
    frechet = reference.extractor.traits.frechet_figure
    assert frechet is not None
    return {
        **_made(image_set), **_circumstances(image_set.config, own), "metric": TEACHER_DISTANCE.name,
        "value": TEACHER_DISTANCE.compute(ours.moments, theirs.moments),
        "warning": _warning(own, frechet.name, len(image_set.prompts), image_set.prompts),
    }  # fmt: skip


def real_image_rows(config: Config, references: Sequence[Reference]) -> list[dict[str, Any]]:
    """Rows of `METRICS` with the distance of real images of other captions, for references that have one."""
    return [
        {
            "model": "real", "sampler": "none", "metric": figure.name, "value": reference.real_distance,
            "images": reference.real_images, **_circumstances(config, reference),
            "warning": _warning(reference, figure.name, reference.real_images or 0),
        }
        for reference in references
        if reference.real_distance is not None and (figure := reference.extractor.traits.frechet_figure)
    ]  # fmt: skip


def _values(image_set: ImageSet, reference: Reference) -> dict[str, float]:
    """Figures by name."""
    statistics = FeatureSet(image_set, reference.extractor).statistics()
    return measure(reference.extractor.traits, statistics, reference.statistics)


def _warning(reference: Reference, metric: str, images: int, prompts: Sequence[Prompt] = ()) -> str | None:
    """Why a figure does not compare with published ones; None where it does."""
    real = reference.statistics.images if reference.statistics else None
    reasons = [reference.extractor.traits.warning(metric, images, real), repetition(prompts)]
    return "; ".join(reason for reason in reasons if reason) or None


def _circumstances(config: Config, reference: Reference) -> dict[str, Any]:
    return {
        "protocol": reference.extractor.protocol,
        "extractor": reference.extractor.name,
        "extractor_sha256": reference.extractor.sha256,
        "reference": reference.source,
        "prompts": reference.prompts,
        "seed": config.generation_seed,
        "same_noise": config.evaluate.same_noise,
        "config_fingerprint": config.fingerprint(*FINGERPRINTED),
        "commit": source_commit(),
        "time": datetime.now(UTC),
    }
