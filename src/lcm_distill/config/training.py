"""Training of teachers and students, and how it uses its devices."""

import math
from typing import Any, Literal, Self, cast

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from lcm_distill.config.objectives import (
    AdversarialConfig,
    DiscreteConfig,
    LoraSettings,
    MatchingConfig,
    ObjectiveConfig,
    PhasedConfig,
    ResponseConfig,
    ScmConfig,
    TuningConfig,
)
from lcm_distill.config.ranges import Guidance
from lcm_distill.config.section import (
    ADDED,
    BY_CONTENT,
    NOT_IDENTITY,
    OLD_NAME,
    ON_RESUME,
    ROUNDS,
    OnResume,
    Section,
)


class OptimiserConfig(Section):
    """AdamW and its schedule: linear warm-up, constant, then linear to zero."""

    steps: PositiveInt = Field(json_schema_extra={ON_RESUME: OnResume.CONTINUED})
    """Optimiser steps. A finished training goes on to a higher number, with the result of one training of so many, if
    the number decides nothing in the steps that are done: `decay_fraction = 0`, and no other key that counts in shares
    of the training."""
    batch_size: PositiveInt
    """Samples in a step."""
    learning_rate: PositiveFloat
    """Learning rate between warm-up and decay."""
    warmup_steps: NonNegativeInt = 20
    """Steps over which the learning rate rises from zero."""
    decay_fraction: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's averaging factors."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    moments: Literal["float32", "8bit"] = "float32"
    """Precision of AdamW's moments. `8bit`: 2 bytes a parameter, not 8; 256 values share a scale (arXiv 2110.02861,
    `pip install 'lcm-distill[eightbit]'`); the first step compiles the update."""
    clip_norm: PositiveFloat = 1.0
    """Largest norm of the gradient; a larger gradient is scaled down to it."""
    ema_exponent: float = Field(default=8.0, ge=0)
    """Exponent of the published power-function average (arXiv 2312.02696): larger values average over fewer steps."""
    checkpoint_every: PositiveInt = Field(default=50, json_schema_extra=NOT_IDENTITY)
    """Steps between checkpoints; a resumed run repeats fewer steps than this."""

    def decayed(self, left: float) -> float:
        """Factor of the learning rate, from 1 down to 0, when a share `left` of the decay remains."""
        return left


class EngineConfig(Section):
    """How a training uses its devices, and what it records; the same for teacher and student."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision that networks compute in. `bfloat16`: matrix products of the blocks only; weights, averages, norms,
    the residual stream, embeddings of noise levels and the last layer stay float32. For pairs of noise levels closer
    than 2 % (at sigma 1) to 6 % (at 0.1 and 80), rounding exceeds the difference of the two outputs
    (`benchmarks/precision.py`)."""
    sharding: Literal["none", "fsdp"] = Field(default="none", json_schema_extra=ROUNDS)
    """`none`: every rank holds whole networks, and gradients are averaged (DistributedDataParallel). `fsdp`: weights,
    averages and optimiser states are sharded over the ranks (FSDP2). Weights agree up to rounding; so they do for
    another number of ranks."""
    micro_batch: PositiveInt | None = Field(default=None, json_schema_extra=ROUNDS)
    """Samples in one pass of a rank; gradients are accumulated over a step, so that another value adds them up in
    another order: weights then agree up to rounding, not to the bit. Unset: the rank's whole share of the batch."""
    activation_checkpointing: bool = Field(default=False, json_schema_extra=NOT_IDENTITY)
    """Recompute a block's activations in the backward pass: far less memory for about a third more computation."""
    keep_checkpoints: PositiveInt = Field(default=2, json_schema_extra=NOT_IDENTITY)
    """Number of newest checkpoints that are kept on disk."""
    spike: float = Field(default=100.0, ge=0, json_schema_extra=NOT_IDENTITY)
    """Training stops when a loss exceeds the median of the last hundred losses by this factor. 0: only when it is not
    finite."""
    tensorboard: bool = Field(default=True, json_schema_extra=NOT_IDENTITY)
    """Also write events for TensorBoard, into `tensorboard/` beside the Parquet files."""
    wandb: str | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Weights & Biases project that also receives events; the package `wandb` must be installed."""
    validate_every: PositiveInt | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Steps between validations of the weights to publish, teacher or student, on held-out captions. Unset: none."""
    validation_images: PositiveInt = Field(default=64, json_schema_extra=NOT_IDENTITY)
    """Images in a validation, always of the same captions and noise."""

    @model_validator(mode="before")
    @classmethod
    def _without_compile(cls, values: Any) -> Any:
        """Accept `compile = false`, which configurations of older runs have."""
        if isinstance(values, dict) and "compile" in values:
            kept = cast(dict[str, Any], values).copy()
            if kept.pop("compile"):
                raise ValueError("the key compile was removed, as kernels are fused on GPUs without it: leave it out")
            return kept
        return cast(Any, values)


class PretrainConfig(OptimiserConfig):
    """Training of a teacher by denoising."""

    start: str | None = Field(default=None, json_schema_extra=BY_CONTENT)
    """Checkpoint of an earlier training to start from, of any resolution; its hash is part of the training's identity.
    Unset: randomly initialised weights."""
    caches: dict[str, PositiveFloat] = Field(default={}, json_schema_extra=BY_CONTENT)
    """Folders of other runs whose caches are mixed in, each with its share of the samples. This run's own cache
    provides the rest; if nothing is left, it is not needed. The shares and the caches' contents are part of the
    training's identity."""
    mask_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the patches that each step drops after the patch mixer (deferred masking, arXiv 2407.15811). Finishing
    with some unmasked steps (0) improves images."""
    decay: Literal["linear", "cosine"] = "linear"
    """Shape of the learning rate's decay over the last `decay_fraction` of the steps."""
    decay_to: float = Field(default=0.0, ge=0, le=1)
    """Learning rate at the end of the decay, as a share of `learning_rate`."""
    sigma_mean: float
    """Mean of ln sigma."""
    sigma_std: PositiveFloat
    """Standard deviation of ln sigma."""
    caption_drop: float = Field(default=0.1, ge=0, le=1)
    """Share of samples trained with the null caption, which classifier-free guidance needs."""

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

    seed: int | None = Field(default=None, ge=0, lt=2**64)
    """Seed of this training: order of samples, noise, noise levels, guidance scales and a randomly initialised guidance
    embedder. Data, held-out captions and the noise of generated images follow the run's `seed`. Unset: the run's
    `seed`."""
    objective: str = "tuning"
    """The training objective: `tuning`, `discrete`, `scm` or `phased`. Each has a table of its own below; the tables of
    the others have no effect."""
    solver: Literal["euler", "heun", "dpmpp_2s"] = "euler"
    """The teacher's ODE step from one point of a pair to the other: `euler` takes one guided evaluation, `heun` and
    `dpmpp_2s` (DPM-Solver++(2S), arXiv 2211.01095) two. The last is the most exact where pairs are wide."""
    distance: Literal["huber", "l2"] = "huber"
    """Distance between the outputs at a pair's two points: pseudo-Huber, or the mean square."""
    huber: PositiveFloat = 0.03
    """c of the pseudo-Huber distance, where it turns from quadratic to linear, in root mean square of the latents."""
    target_decay: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the student's average that computes the target at a pair's nearer point. 0: the student itself, without
    a gradient, as in ECT."""
    guidance_range: tuple[Guidance, Guidance]
    """Range of the guidance scales that the student is trained for, drawn uniformly."""
    guidance_embedder: Literal["zero", "random"] = "zero"
    """Initialisation of the guidance scale's embedding. `zero`: the student starts equal to its teacher. `random`: as
    the time embedding's."""
    sigma_distribution: Literal["lognormal", "uniform"] = Field(
        default="lognormal", json_schema_extra={OLD_NAME: "levels"}
    )
    """Distribution of the noise level of a pair's noisier point: lognormal with `sigma_mean`, `sigma_std` and
    `sigma_max_share`, or uniform over EDM's schedule with `diffusion.rho`. `discrete` rounds it up to a point of its
    grid."""
    sigma_mean: float = 0.0
    """Mean of ln sigma of the lognormal distribution."""
    sigma_std: PositiveFloat = 1.8
    """Standard deviation of ln sigma of the lognormal distribution."""
    sigma_max_share: float = Field(default=0.1, ge=0, le=1)
    """Share of lognormal draws that is replaced by sigma_max, where one-step sampling starts."""
    publish: Literal["average", "raw"] = "average"
    """The weights that are published: the power-function average of `ema_exponent`, or those of the last step."""
    discrete: DiscreteConfig = DiscreteConfig()
    """For `objective = "discrete"`."""
    tuning: TuningConfig = TuningConfig()
    """For `objective = "tuning"`."""
    scm: ScmConfig = ScmConfig()
    """For `objective = "scm"`."""
    phased: PhasedConfig = PhasedConfig()
    """For `objective = "phased"`."""

    matching: MatchingConfig = MatchingConfig()
    """A distribution-matching term, beside any objective."""
    adversarial: AdversarialConfig = Field(default=AdversarialConfig(), json_schema_extra=ADDED)
    """An adversarial term, beside any objective."""
    response: ResponseConfig = Field(default=ResponseConfig(), json_schema_extra=ADDED)
    """A term for the response to the guidance scale, beside any objective."""
    fresh_noise: bool = Field(default=True, json_schema_extra=ADDED)
    """Whether a step of the student after its first adds fresh noise, in distribution matching and wherever it is
    sampled. Without, a sample keeps the noise it began with. A phased student never adds any."""
    lora: LoraSettings = LoraSettings()
    """Trains only adapters and the guidance embedder. The student is published merged, and as the run's `adapter/`."""

    @field_validator("objective")
    @classmethod
    def _has_a_table(cls, name: str) -> str:
        tables = [key for key, field in cls.model_fields.items() if isinstance(field.default, ObjectiveConfig)]
        if name not in tables:
            raise ValueError(f"choose from {', '.join(tables)}")
        return name

    @model_validator(mode="after")
    def _range_ordered(self) -> Self:
        low, high = self.guidance_range
        if not 1 <= low <= high:
            raise ValueError(f"guidance_range {[low, high]} must hold two values, 1 or more, the lower first")
        if low == high and self.response.weight:
            raise ValueError(
                f"guidance_range {[low, high]} is one scale, to which there is no response: set response.weight=0"
            )
        return self

    @property
    def objective_settings(self) -> ObjectiveConfig:
        """The table of the configured objective."""
        return cast(ObjectiveConfig, getattr(self, self.objective))

    @property
    def falling_sigmas(self) -> dict[str, list[float]]:
        """Noise levels of the steps of samplers in what is switched on, by key."""
        sampled, regressed = self.matching.weight or self.adversarial.weight, self.response.weight
        return {
            **({"distill.matching.sigmas": self.matching.sigmas} if sampled else {}),
            **({"distill.response.sigmas": self.response.sigmas} if regressed else {}),
        }

    @property
    def log_means(self) -> dict[str, float]:
        """Means of ln sigma, by key."""
        return {
            "distill.sigma_mean": self.sigma_mean,
            "distill.matching.sigma_mean": self.matching.sigma_mean,
            "distill.adversarial.sigma_mean": self.adversarial.sigma_mean,
        }

    @property
    def middle_guidance(self) -> float:
        """The middle of `guidance_range`."""
        return sum(self.guidance_range) / 2
