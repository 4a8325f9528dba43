"""Settings of the objectives that a student can be trained with, and of the terms and adapters beside them."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lcm_distill.config.section import ADDED, Section

NARROWEST = 1e-4
"""Least interval of a pair's sigmas, as a share of the larger."""


class ObjectiveConfig(Section):
    """Settings of one objective, and what the objective asks of a training."""

    forward_mode: ClassVar[bool] = False
    """Whether it takes forward-mode derivatives, which run neither on sharded weights nor without values."""

    @property
    def phase_edges(self) -> list[float] | None:
        """Inner edges of the phases that the student is trained within, falling; None without phases."""
        return None

    @property
    def spread_by(self) -> str | None:
        """Name of a key whose effect is spread over all steps, so that each depends on their number; None without."""
        return None


GapRatio = Annotated[float, Field(ge=0.01, le=0.999)]
"""Sigma of a pair's nearer point over that of its noisier point; the outputs at closer points differ by rounding."""


class DiscreteConfig(ObjectiveConfig):
    """Pairs of neighbouring points of a fixed grid (LCM, arXiv 2310.04378)."""

    points: int = Field(default=40, ge=2)
    """Points of the grid: EDM's schedule with `diffusion.rho`, from sigma_max to sigma_min."""
    skip: PositiveInt = 1
    """Grid points from one point of a pair to the other (the skipping step k of LCM)."""

    @model_validator(mode="after")
    def _skip_fits(self) -> Self:
        if self.skip >= self.points:
            raise ValueError(f"skip = {self.skip} leaves no pair on a grid of points = {self.points}: lower skip")
        return self


class TuningConfig(ObjectiveConfig):
    """Pairs of sigmas whose interval is proportional to the sigma (ECT, arXiv 2406.14548)."""

    gap_ratio: GapRatio = 0.75
    """Sigma of a pair's nearer point over that of its noisier point, at the start of training and at high noise."""
    halvings: int = Field(default=0, ge=0, le=20)
    """Number of times the interval is halved during training, at even intervals; ECT: 7 from a `gap_ratio` of 0.5."""
    widening: float = Field(default=0.0, ge=0, le=100)
    """Widens the interval at low noise, up to a factor of 1 + widening / 2; ECT: 8."""
    snap_below: PositiveFloat = 0.02
    """Pairs whose nearer point falls below this sigma end at sigma_min."""
    weighting: Literal["even", "inverse_gap"] = "even"
    """`inverse_gap` divides a pair's loss by the difference of its noise levels, as in ECT."""

    @model_validator(mode="after")
    def _points_stay_apart(self) -> Self:
        if (1 - self.gap_ratio) / 2**self.halvings < NARROWEST:
            raise ValueError(
                f"halvings = {self.halvings} of the interval of gap_ratio = {self.gap_ratio} leave less than "
                f"{NARROWEST:g} of a sigma, at which outputs differ by rounding: lower halvings"
            )
        return self

    @property
    def spread_by(self) -> str | None:
        """See `ObjectiveConfig`."""
        return "halvings" if self.halvings else None


class ScmConfig(ObjectiveConfig):
    """The limit of vanishing intervals (sCM, arXiv 2410.11081). It needs no solver, distance or target."""

    forward_mode: ClassVar[bool] = True

    normalisation: PositiveFloat = 0.1
    """c of the tangent's normalisation g / (|g| + c), with |g| the root mean square over the latents."""
    warmup: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps over which the student turns from its teacher's denoiser into a consistency function."""

    @property
    def spread_by(self) -> str | None:
        """See `ObjectiveConfig`."""
        return "warmup" if self.warmup else None


class PhasedConfig(ObjectiveConfig):
    """Consistency within phases of the trajectory (PCM, arXiv 2405.18407)."""

    edges: list[PositiveFloat] = [4.0, 1.5, 0.6]
    """Noise levels at which the trajectory is divided, falling. The student samples in one step more than there are
    edges, and in no other number of steps."""
    gap_ratio: GapRatio = 0.75
    """Sigma of a pair's nearer point over that of its noisier point; a pair never crosses the end of its phase."""

    @property
    def phase_edges(self) -> list[float] | None:
        """See `ObjectiveConfig`."""
        return self.edges


class MatchingConfig(Section):
    """Distribution matching beside the objective (DMD, arXiv 2311.18828). It needs no images, only captions."""

    weight: float = Field(default=0.0, ge=0)
    """Weight of the term; 0 disables it, and the critic with it."""
    start: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps, at the start, over which only the critic learns from generated latents."""
    guidance_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the guidance beyond 1 that the teacher keeps where it scores generated latents. With all of it they
    agree better with captions, at the cost of variety."""
    guidance_less: float = Field(default=0.0, ge=0, json_schema_extra=ADDED)
    """What is taken off that guidance in addition, down to 1: unlike a smaller share it leaves the difference between
    scales as the teacher has it."""
    shared_noise: bool = Field(default=False, json_schema_extra=ADDED)
    """Compare the scores where the critic learns, in the same noise, so that the teacher is evaluated once a step."""
    critic_rate: PositiveFloat = 4.0
    """The critic's learning rate in multiples of the student's."""
    sigmas: list[PositiveFloat] = Field(default=[80.0, 8.0, 2.0, 0.5], min_length=1)
    """Noise levels, falling, of the student's sampling steps in training, of the adversarial term too; a batch has the
    first few of them."""
    sigma_mean: float = -0.2
    """Mean of ln sigma of the noise levels at which the scores of critic and teacher are compared."""
    sigma_std: PositiveFloat = 1.4
    """Standard deviation of that ln sigma."""

    def begun(self, step: int, steps: int) -> bool:
        """Whether the student has the term in a step, counted from 0, of a training of `steps`."""
        return step >= self.start * steps


class AdversarialConfig(Section):
    """An adversarial term on the student's samples, the same as distribution matching's (LADD, arXiv 2403.12015).

    A discriminator tells them from the cache's latents by what the teacher computes of both.
    """

    weight: float = Field(default=0.0, ge=0)
    """Weight of the term; 0 disables it, and the discriminator with it."""
    start: float = Field(default=0.4, ge=0, lt=1)
    """Share of the steps, at the start, over which only the discriminator learns."""
    discriminator_rate: PositiveFloat = 50.0
    """The discriminator's learning rate in multiples of the student's. It starts from nothing."""
    sigma_mean: float = -1.6
    """Mean of ln sigma of the noise in which data and samples are told apart."""
    sigma_std: PositiveFloat = 1.0
    """Standard deviation of that ln sigma."""

    def begun(self, step: int, steps: int) -> bool:
        """Whether the student has the term in a step, counted from 0, of a training of `steps`."""
        return step >= self.start * steps


class ResponseConfig(Section):
    """The student's response to its guidance scale, regressed on the teacher's, beside any objective."""

    weight: float = Field(default=0.0, ge=0)
    """Weight of the term; 0 disables it."""
    every: PositiveInt = 4
    """Number of steps of which one has the term."""
    sigmas: list[PositiveFloat] = Field(default=[80.0, 10.0, 5.0, 2.5, 1.2, 0.5], min_length=3)
    """Noise levels, falling, of the teacher's trajectories, one evaluation each and two where guidance is applied. Half
    of the steps start at the first, the others at any but the last."""

    def due(self, step: int, steps: int) -> bool:
        """Whether a step, counted from 0, of a training of `steps` has the term: the last, and every n-th before."""
        return (steps - 1 - step) % self.every == 0

    @property
    def mean_evaluations(self) -> float:
        """Evaluations of a trajectory in the mean over steps: half have all, the others from two to all but one."""
        return (len(self.sigmas) + (len(self.sigmas) + 1) / 2) / 2


class LoraSettings(Section):
    """Low-rank adapters in place of training all weights (LoRA, arXiv 2106.09685), for GPUs with little memory."""

    rank: NonNegativeInt = 0
    """Rank of the adapters on attention and dense feed-forwards; 0 trains all weights, without adapters."""
    alpha: PositiveFloat = 64.0
    """An adapter's product is scaled by alpha / rank."""
