"""Sampling sigmas, generated images and how they are measured."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from lcm_distill.config.section import NOT_IDENTITY, Section

MetricProtocol = Literal[
    "shapes", "t2i-benchmark", "gigagan", "torch-fidelity", "pytorch-fid", "fd-dinov2", "cmmd", "clip-vit-b-32",
    "clip-vit-g-14",
]  # fmt: skip


class ScheduleConfig(Section):
    """The search for the noise levels that a student jumps from."""

    steps: list[PositiveInt] = [1, 2, 3, 4, 5, 8]
    """Numbers of steps that get levels of their own."""
    samples: PositiveInt = 1_000
    """Drawings of training captions to a trial."""


def _one_is_a_list(value: Any) -> Any:
    return cast(list[Any], value) if isinstance(value, list) else [value]


class EvaluateConfig(Section):
    """Which images are generated and measured."""

    prompts: str = "held-out"
    """`held-out`: captions of the data set that training never sees. Or a file of captions: text2image-benchmark's
    `.csv` (image_id,text), COCO's `captions_val2014.json`, `PartiPrompts.tsv`, or a `.txt` with one a line."""
    images: PositiveInt = 2_000
    """Images to a figure, one a caption. Held-out captions repeat when there are fewer; a file must have as many."""
    models: list[Literal["teacher", "student"]] = Field(default=["teacher", "student"], min_length=1)
    """Which are drawn and measured. Figures of the other, measured before, stay in the table."""
    guidance: Annotated[
        list[Annotated[float, Field(ge=1, allow_inf_nan=False)]], BeforeValidator(_one_is_a_list), Field(min_length=1)
    ]
    """Guidance scales, for teacher and student alike; a number stands for a list of one. Of several, the first is that
    of `grid.png`, and figures against the scale are written to `guidance.parquet`, `.md` and `.png`."""
    teacher: list[tuple[Literal["euler", "heun"], PositiveInt]]
    """Solver and steps of each teacher that is measured."""
    student_steps: list[PositiveInt]
    """Steps of each student that is measured; each needs an entry in `student_sigmas`, but for a phased student's."""
    student_sigmas: dict[PositiveInt, list[PositiveFloat]]
    """Noise levels the student jumps from, falling, by number of steps. A phased student jumps from its edges."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of the noise that images are drawn from; the run's `seed` if unset."""
    same_noise: bool = False
    """Draw every image from the same noise, as the figures of text2image-benchmark were made."""
    protocols: list[MetricProtocol] = []
    """How images are stored, prepared, looked at and measured. None: images only."""
    reference: dict[MetricProtocol, Path] = Field(default={}, json_schema_extra=NOT_IDENTITY)
    """What images are compared with, by protocol: an `.npz` of mean and covariance (`mu`, `sigma`), or a folder of
    real images. Protocols that are not named here take the real images of held-out captions."""
    weights: dict[MetricProtocol, Path] = Field(default={}, json_schema_extra=NOT_IDENTITY)
    """File of the network's weights, by protocol. Unset: where its library keeps them."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What transformer and VAE compute in while images are generated; noise and solver steps stay float32. `auto`:
    bfloat16 on CUDA devices, float32 on CPUs. What it comes to is part of the images' identity."""
    batch_size: PositiveInt = Field(default=250, json_schema_extra=NOT_IDENTITY)
    """Images to one pass. A batch that does not fit the GPU's memory is halved until it does."""
    shard_images: PositiveInt = Field(default=500, json_schema_extra=NOT_IDENTITY)
    """Images that are generated and committed together, and later measured together."""

    @model_validator(mode="after")
    def _sigmas_fit(self) -> Self:
        for steps, sigmas in self.student_sigmas.items():
            if len(sigmas) != steps or sorted(sigmas, reverse=True) != sigmas:
                raise ValueError(f"student_sigmas.{steps} = {sigmas} must be {steps} falling noise levels")
        return self

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        for name in ("models", "guidance", "teacher", "student_steps", "protocols"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {values} names one twice")
        return self
