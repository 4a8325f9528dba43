"""Where the time of a run went, from what its stages recorded while they worked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lcm_distill.report.figure_columns import of_images
from lcm_distill.report.tables import sampling_title
from lcm_distill.report.units import format_duration

HEADINGS = ("stage", "part", "time", "share", "count", "a second")
TIMED = (
    "Encoding is timed by when its shards were committed, from the catalog on and without interruptions; training by "
    "its steps, without checkpoints and validations; evaluation by the generation of images, without their measurement."
)
"""What the times are of."""
IMAGE_SET = ("model", "sampler", "steps", "guidance", "sigmas", "prompts", "seed", "checkpoint_sha256")
"""What tells the images of one sampling from others, in rows of `metrics.parquet`."""


@dataclass(frozen=True)
class Spent:
    """Time that a part of a stage took.

    Attributes:
        seconds: of the stage, or of one worker after the other where several generate images.
        count: images, or captions, that were worked through.
    """

    stage: str
    part: str
    seconds: float
    count: int


def generating(rows: Sequence[Mapping[str, Any]]) -> Iterator[Spent]:
    """Time of each sampling of an evaluation, by rows of `metrics.parquet`: generated and decoded, not measured."""
    sets = {tuple(str(row[key]) for key in IMAGE_SET): row for row in of_images(rows) if row["seconds_per_image"]}
    scales = {row["guidance"] for row in sets.values()}
    for row in sets.values():
        scale = f", guidance {row['guidance']:g}" if len(scales) > 1 else ""
        part = sampling_title(row["model"], row["sampler"], row["steps"]) + scale
        yield Spent("evaluate", part, row["images"] * row["seconds_per_image"], row["images"])


def generating_only(sets: Iterable[tuple[str, int, float]]) -> Iterator[Spent]:
    """Time of image sets that have no row in `metrics.parquet`.

    Args:
        sets: name, as `teacher-heun-18`; images; and the seconds that they took.
    """
    for name, images, seconds in sets:
        model, sampler, steps = name.split("-")
        yield Spent("evaluate", sampling_title(model, sampler, int(steps)), seconds, images)


def time_cells(spent: Sequence[Spent]) -> list[list[str]]:
    """A line a part, in their order, below `HEADINGS`; shares are of the whole list."""
    whole = sum(part.seconds for part in spent)
    return [
        [
            part.stage,
            part.part,
            format_duration(part.seconds),
            f"{part.seconds / whole:.1%}",
            f"{part.count:,}",
            f"{part.count / part.seconds:,.1f}",
        ]
        for part in spent
    ]
