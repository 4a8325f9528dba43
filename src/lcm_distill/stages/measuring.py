"""Finished drawings to figures: Fréchet distance to real pictures, and how often the caption is seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lcm_distill import assets
from lcm_distill.config import Config
from lcm_distill.errors import UserError
from lcm_distill.metrics.frechet import Moments, frechet_distance
from lcm_distill.metrics.shapes_network import load_shapes_network
from lcm_distill.pipeline.atomic import file_sha256
from lcm_distill.pipeline.run_folder import RunFolder, source_commit
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.stages.cache import real_pictures, usable_samples
from lcm_distill.stages.drawing import Drawing, Prompt, see

METRICS = pa.schema(
    [("model", pa.string()), ("sampler", pa.string()), ("steps", pa.int64()), ("guidance", pa.float64()),
     ("metric", pa.string()), ("value", pa.float64()), ("images", pa.int64()),
     ("network_evaluations", pa.int64()), ("seconds_per_image", pa.float64()), ("features", pa.string()),
     ("checkpoint", pa.string()), ("checkpoint_sha256", pa.string()), ("config_fingerprint", pa.string()),
     ("commit", pa.string()), ("time", pa.timestamp("s", tz="UTC"))]
)  # fmt: skip

FRECHET, CAPTIONS = "frechet_distance", "caption_accuracy"


@dataclass(frozen=True)
class Reference:
    """Real pictures, as the feature network sees them.

    Attributes:
        moments: of the pictures that the captions drawn belong to.
        floor: Fréchet distance of pictures of other captions to them. floor_images: how many.
    """

    moments: Moments
    floor: float
    floor_images: int


def real_reference(config: Config, run: RunFolder, prompts: Sequence[Prompt]) -> Reference:
    """What drawings of these prompts are compared with.

    Raises:
        UserError: no feature network is configured.
    """
    if config.evaluate.features is None:
        raise UserError("evaluate.features is unset: without a feature network there is nothing to measure")
    others = usable_samples(config, LocalStorage(run.cache), "train").slice(0, config.evaluate.images)
    moments = _moments(config, run, list(dict.fromkeys(prompt.picture for prompt in prompts)))
    floor = frechet_distance(_moments(config, run, others["source"].to_pylist()), moments)
    return Reference(moments, floor, len(others))


def _moments(config: Config, run: RunFolder, sources: Sequence[str]) -> Moments:
    """Moments of the features of real pictures, prepared as for encoding."""
    features, _ = see(load_shapes_network(assets.FEATURES), real_pictures(config, run, sources))
    return Moments.of(torch.from_numpy(features))


def figures(drawing: Drawing, reference: Reference) -> list[dict[str, Any]]:
    """Rows of `METRICS` for a finished drawing."""
    way, table = drawing.way, drawing.table()
    hits, seconds = table["caption_hit"].to_numpy(), table["seconds"].to_numpy()
    values = {
        FRECHET: frechet_distance(Moments.of(torch.from_numpy(drawing.features())), reference.moments),
        CAPTIONS: float(np.mean(hits.astype(float))),
    }
    shared = {
        "model": way.model, "sampler": way.sampler, "steps": way.steps, "guidance": way.guidance,
        "images": len(hits), "network_evaluations": way.evaluations, "seconds_per_image": float(seconds.mean()),
        "checkpoint": str(drawing.checkpoint), "checkpoint_sha256": file_sha256(drawing.checkpoint),
        **_provenance(drawing.config),
    }  # fmt: skip
    return [{**shared, "metric": metric, "value": value} for metric, value in values.items()]


def floor_figure(config: Config, reference: Reference) -> dict[str, Any]:
    """Row of `METRICS` that says how far real pictures are from real pictures."""
    return {
        "model": "real", "sampler": "none", "metric": FRECHET, "value": reference.floor,
        "images": reference.floor_images, **_provenance(config),
    }  # fmt: skip


def _provenance(config: Config) -> dict[str, Any]:
    sections = ("data", "encoders", "cache", "model", "diffusion", "distill", "evaluate")
    return {
        "features": f"{config.evaluate.features}:{file_sha256(assets.FEATURES)[:12]}",
        "config_fingerprint": config.fingerprint(*sections),
        "commit": source_commit(),
        "time": datetime.now(UTC),
    }
