"""What an evaluation would generate and measure, and what it lacks."""

from typing import Any

from lcm_distill.config import Config
from lcm_distill.evaluation.image_sets import image_format
from lcm_distill.evaluation.samplings import samplings
from lcm_distill.pipeline.run_folder import RunFolder

BYTES_A_PIXEL = {"PNG": 2.0, "JPEG": 0.5}
"""Of photographs, roughly."""


def plan_evaluation(config: Config, run: RunFolder, images_only: bool = False) -> dict[str, Any]:
    """Figures of an evaluation.

    Args:
        images_only: generate images and measure nothing.
    """
    chosen, images = samplings(config, run.student), config.evaluate.images
    form = image_format(config.evaluate)
    pixels = len(chosen) * images * config.resolution**2
    return {
        "samplings": [f"{sampling.title}, guidance {sampling.guidance:g}" for sampling in chosen],
        "images": images * len(chosen),
        "shards": -(-images // config.evaluate.shard_images) * len(chosen),
        "network_evaluations": images * sum(sampling.evaluations for sampling in chosen),
        "files": f"{form.format}, quality {form.quality}" if form.quality else form.format,
        "disk_bytes_about": int(pixels * BYTES_A_PIXEL[form.format]),
        "protocols": [] if images_only else list(config.evaluate.protocols),
    }
