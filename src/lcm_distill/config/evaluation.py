"""Sampling sigmas, generated images and how they are measured."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from lcm_distill.config.ranges import Guidance, Sigma, Steps
from lcm_distill.config.section import BY_CONTENT, IDENTITY, ROUNDS, OnResume, Section

EvaluatedModel = Literal["teacher", "untrained", "student"]
"""A model that can be evaluated."""


class ScheduleConfig(Section):
    """The search for the sigmas of a student's sampler, by `lcm schedule`."""

    on_resume: ClassVar[OnResume] = OnResume.NEW_WORK

    steps: list[Steps] = [1, 2, 3, 4, 5, 8]
    """Numbers of steps whose sigmas are searched."""
    samples: PositiveInt = 1_000
    """Generated samples per trial, of training captions."""
    sigmas: dict[PositiveInt, list[Sigma]] = {}
    """Sigmas to store as they are, falling, by number of steps, where nothing is to be searched."""

    @model_validator(mode="after")
    def _sigmas_fit(self) -> Self:
        _require_falling("sigmas", self.sigmas)
        if missing := self.sigmas.keys() - set(self.steps):
            raise ValueError(f"sigmas has {sorted(missing)}, which steps = {self.steps} has not: add them there")
        return self


def _require_falling(key: str, sigmas: Mapping[int, Sequence[float]]) -> None:
    for steps, falling in sigmas.items():
        if len(falling) != steps or any(upper <= lower for upper, lower in pairwise(falling)):
            raise ValueError(f"{key}.{steps} = {list(falling)} must be {steps} falling sigmas")


def _one_is_a_list(value: Any) -> Any:
    return cast(list[Any], value) if isinstance(value, list) else [value]


class EvaluateConfig(Section):
    """Which images are generated and measured."""

    on_resume: ClassVar[OnResume] = OnResume.NEW_WORK

    prompts: str = "held-out"
    """`held-out`: captions of the data set that training never sees. Or a file of captions: text2image-benchmark's
    `.csv` (image_id,text), COCO's `captions_val2014.json`, `PartiPrompts.tsv`, or a `.txt` with one a line."""
    images: PositiveInt = 2_000
    """Images per figure, one per caption. Held-out captions repeat when there are fewer; a file must have as many."""
    models: list[EvaluatedModel] = Field(default=["teacher", "student"], min_length=1)
    """Models that generate images and are measured. `untrained`: the student before its first step, which is the
    teacher's weights under the student's samplers, the same at every guidance scale. Earlier metrics of other models
    stay in `metrics.parquet`."""
    guidance: Annotated[list[Annotated[Guidance, Field(ge=1)]], BeforeValidator(_one_is_a_list), Field(min_length=1)]
    """Guidance scales, for teacher and student alike; a number stands for a list of one. Of several, the first is that
    of `grid.png`, and figures against the scale are written to `guidance.parquet`, `.md` and a chart each."""
    teacher: list[tuple[Literal["euler", "heun"], Steps]]
    """Solver and steps of each teacher that is measured."""
    student_steps: list[Steps]
    """Numbers of steps in which the student is measured; a phased student has one, its number of phases."""
    student_sigmas: dict[PositiveInt, list[Sigma]]
    """Sigmas that a newly distilled student is published with, falling, by number of steps. The student's checkpoint
    decides, where `lcm schedule` stores the sigmas that it finds: these serve only for numbers of steps that it has
    none for, and EDM's schedule for those that are not here either. A phased student takes its edges."""
    student_sampler: Literal["own", "original"] = Field(default="own", json_schema_extra={IDENTITY: False})
    """Sampler of the student. `own`: at the sigmas that it was published with. `original`: that of the published
    consistency student of MicroDiT, EDM's schedule of as many sigmas, the last of which is sigma_min."""
    seed: int | None = Field(default=None, ge=0, lt=2**64)
    """Seed of the noise that images are generated from; the run's `seed` if unset."""
    same_noise: bool = False
    """Generate every image from the same noise, as text2image-benchmark's figures were."""
    protocols: list[str] = []
    """Metric protocols: how images are stored, preprocessed and measured. None: images only."""
    reference: dict[str, Path] = Field(default={}, json_schema_extra=BY_CONTENT)
    """What images are compared with, by protocol: an `.npz` of mean and covariance (`mu`, `sigma`), or a folder of
    real images. Protocols that are not named here take the real images of held-out captions."""
    weights: dict[str, Path] = Field(default={}, json_schema_extra=BY_CONTENT)
    """File of the network's weights, by protocol. Unset: where its library keeps them."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What transformer and VAE compute in while images are generated; noise and sampler steps stay float32. `auto`:
    bfloat16 on CUDA devices, float32 on CPUs. The resulting dtype is part of the images' identity."""
    batch_size: PositiveInt = Field(default=250, json_schema_extra=ROUNDS)
    """Images per batch. A batch that does not fit the GPU's memory is halved until it does. Images of other batches and
    their features agree up to rounding."""
    shard_images: PositiveInt = Field(default=500, json_schema_extra=ROUNDS)
    """Images that are generated and committed together, and later measured together. A set of images that is begun
    keeps its own number. Figures are sums over shards, so those of other shards agree up to rounding."""

    @model_validator(mode="after")
    def _sigmas_fit(self) -> Self:
        _require_falling("student_sigmas", self.student_sigmas)
        return self

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        for name in ("models", "guidance", "teacher", "student_steps", "protocols"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {values} names one twice")
        return self
