"""Training of teachers and students, and how it uses its machines."""

import math
from typing import Any, Literal, Self, cast

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lcm_distill.config.objectives import (
    DiscreteConfig,
    LoraSettings,
    MatchingConfig,
    PhasedConfig,
    ScmConfig,
    TuningConfig,
)
from lcm_distill.config.section import NOT_IDENTITY, OLD_NAME, Section


class OptimiserConfig(Section):
    """AdamW and its schedule: linear warm-up, constant, then linear to zero."""

    steps: PositiveInt
    """Optimiser steps."""
    batch_size: PositiveInt
    """Samples to a step."""
    learning_rate: PositiveFloat
    """Rate between warm-up and decay."""
    warmup_steps: NonNegativeInt = 20
    """Steps over which the rate rises from zero."""
    decay_fraction: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps, at the end, over which the rate falls to zero."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's averaging factors."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    moments: Literal["float32", "8bit"] = "float32"
    """How AdamW's moments are held. `8bit`: 2 bytes a parameter instead of 8, 256 values to a scale (arXiv 2110.02861,
    `pip install 'lcm-distill[eightbit]'`); the first step compiles the update."""
    clip_norm: PositiveFloat = 1.0
    """The gradient's norm is cut to this."""
    ema_exponent: float = Field(default=8.0, ge=0)
    """Width of the power-function average that is published (arXiv 2312.02696): larger follows more closely."""
    checkpoint_every: PositiveInt = Field(default=50, json_schema_extra=NOT_IDENTITY)
    """Steps between checkpoints; an interrupted run repeats fewer than this many."""

    def decayed(self, left: float) -> float:
        """Factor of the learning rate when a share `left` of the decay lies ahead, falling from 1 to 0."""
        return left


class EngineConfig(Section):
    """How a training uses its machines; the same for teacher and student."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """What networks compute in. `bfloat16`: products of the blocks alone; weights, their averages, norms, the residual
    stream, embeddings of noise levels and the last layer stay float32. Pairs of noise levels closer than 2 %
    (at sigma 1) to 6 % (at 0.1 and 80) differ by less than it rounds off (`benchmarks/precision.py`)."""
    sharding: Literal["none", "fsdp"] = Field(default="none", json_schema_extra=NOT_IDENTITY)
    """`none`: every rank holds whole networks, and gradients are averaged (DistributedDataParallel). `fsdp`: weights,
    averages and optimiser are split over the ranks (FSDP2)."""
    micro_batch: PositiveInt | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Samples to one pass of a rank, whose gradients are summed before a step. Unset: its whole share of the batch."""
    activation_checkpointing: bool = Field(default=False, json_schema_extra=NOT_IDENTITY)
    """Compute a block's activations again in the backward pass: far less memory for about a third more work."""
    keep_checkpoints: PositiveInt = Field(default=2, json_schema_extra=NOT_IDENTITY)
    """How many of the newest checkpoints stay on disk."""
    spike: float = Field(default=100.0, ge=0, json_schema_extra=NOT_IDENTITY)
    """Training stops where a loss exceeds the median of the last hundred by this factor. 0: only where it is not
    finite."""
    tensorboard: bool = Field(default=True, json_schema_extra=NOT_IDENTITY)
    """Write events for TensorBoard as well, into `tensorboard/` beside the Parquet ones."""
    wandb: str | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Project at Weights & Biases that events go to as well; the package `wandb` must be installed."""
    validate_every: PositiveInt | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Steps between validations of the student's average on held-out captions. Unset: none."""
    validation_images: PositiveInt = Field(default=64, json_schema_extra=NOT_IDENTITY)
    """Images to a validation, always of the same captions and noise."""

    @model_validator(mode="before")
    @classmethod
    def _without_compile(cls, values: Any) -> Any:
        """Configurations of older runs say `compile = false`."""
        if isinstance(values, dict) and "compile" in values:
            kept = cast(dict[str, Any], values).copy()
            if kept.pop("compile"):
                raise ValueError("compile is no key any more: kernels are fused without it on a GPU, leave it out")
            return kept
        return cast(Any, values)


class PretrainConfig(OptimiserConfig):
    """Training of a teacher by denoising."""

    start: str | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Checkpoint of an earlier stage to go on from, of any resolution; its hash is part of the training's identity.
    Unset: fresh weights."""
    caches: dict[str, PositiveFloat] = Field(default={}, json_schema_extra=NOT_IDENTITY)
    """Folders of other runs whose caches are mixed in, each with its share of the samples; this run's own cache has the
    rest, and is not made if there is none. What is in them and the shares are part of the training's identity."""
    mask_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the patches that each step leaves out after the patch mixer (arXiv 2407.15811). Networks draw better
    after some steps with 0 at the end."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls over the last `decay_fraction` of the steps."""
    decay_to: float = Field(default=0.0, ge=0, le=1)
    """Share of the learning rate that is left at the end."""
    sigma_mean: float
    """Mean of ln sigma."""
    sigma_std: PositiveFloat
    """Standard deviation of ln sigma."""
    caption_drop: float = Field(default=0.1, ge=0, le=1)
    """Share of samples trained on the null caption, which guidance needs."""

    @model_validator(mode="after")
    def _shares_leave_some(self) -> Self:
        if sum(self.caches.values()) > 1 + 1e-9:
            raise ValueError(f"caches = {self.caches}: shares must sum to 1 or less, the rest is this run's own cache")
        return self

    @property
    def own_share(self) -> float:
        """Share of the samples that comes from the run's own cache."""
        return max(0.0, round(1 - sum(self.caches.values()), 9))

    def decayed(self, left: float) -> float:
        """See `OptimiserConfig`."""
        shape = (1 - math.cos(math.pi * left)) / 2 if self.decay == "cosine" else left
        return self.decay_to + (1 - self.decay_to) * shape


class DistillConfig(OptimiserConfig):
    """Training of the few-step student."""

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of this training alone: order of samples, noise, noise levels, guidance scales and a guidance embedder that
    starts at random. Data, held-out captions and the noise that is drawn from stay those of the run's `seed`, which
    also serves here if this is unset."""
    objective: Literal["tuning", "discrete", "scm", "phased"] = "tuning"
    """What the student is trained to do. Each has a table of its own below; those of the others do nothing."""
    solver: Literal["euler", "heun"] = "euler"
    """How the teacher steps from one point of a pair to the other: asked once, or twice."""
    distance: Literal["huber", "l2"] = "huber"
    """How the answers at a pair's two points are compared: pseudo-Huber, or the mean square."""
    huber: PositiveFloat = 0.03
    """Where the pseudo-Huber distance turns from squared to absolute, in root mean square of the latents."""
    target_decay: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the average of the student that says what a pair's nearer point maps to. 0: the student itself,
    without a gradient, as in ECT."""
    guidance_range: tuple[float, float]
    """Guidance scales the student is trained to answer to, drawn uniformly."""
    guidance_embedder: Literal["zero", "random"] = "zero"
    """How the embedding of the guidance scale starts. `zero`: the student starts as its teacher. `random`: with
    weights like the time embedding's."""
    sigma_distribution: Literal["lognormal", "uniform"] = Field(
        default="lognormal", json_schema_extra={OLD_NAME: "levels"}
    )
    """How the noise level of a pair's noisier point is drawn: as `sigma_mean`, `sigma_std` and `sigma_max_share` say,
    or evenly over EDM's schedule with `diffusion.rho`. `discrete` rounds it up to a point of its grid."""
    sigma_mean: float = 0.0
    """Mean of ln sigma of lognormal levels."""
    sigma_std: PositiveFloat = 1.8
    """Standard deviation of ln sigma of lognormal levels."""
    sigma_max_share: float = Field(default=0.1, ge=0, le=1)
    """Share of lognormal levels that is moved to sigma_max, where one-step sampling starts."""
    publish: Literal["average", "raw"] = "average"
    """The weights that are published and sampled: the power-function average of `ema_exponent`, or the last ones."""
    discrete: DiscreteConfig = DiscreteConfig()
    """For `objective = "discrete"`."""
    tuning: TuningConfig = TuningConfig()
    """For `objective = "tuning"`."""
    scm: ScmConfig = ScmConfig()
    """For `objective = "scm"`."""
    phased: PhasedConfig = PhasedConfig()
    """For `objective = "phased"`."""

    matching: MatchingConfig = MatchingConfig()
    """Makes few-step drawings as likely as the teacher's own, beside any objective."""
    lora: LoraSettings = LoraSettings()
    """Trains adapters and the guidance embedder alone. The student is published merged, and as the run's `adapter/`."""

    @model_validator(mode="after")
    def _range_ordered(self) -> Self:
        low, high = self.guidance_range
        if not 1 <= low <= high:
            raise ValueError(f"guidance_range {[low, high]} must hold two values, 1 or more, the lower first")
        return self

    @property
    def middle_guidance(self) -> float:
        """The middle of `guidance_range`."""
        return sum(self.guidance_range) / 2
