"""Settings of the objectives that a student can be trained with, and of what goes beside them."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lcm_distill.config.section import Section


class DiscreteConfig(Section):
    """Pairs of neighbouring points of a fixed grid (LCM, arXiv 2310.04378)."""

    points: int = Field(default=40, ge=2)
    """Points of the grid: EDM's schedule with `diffusion.rho`, from sigma_max to sigma_min."""
    skip: PositiveInt = 1
    """Points from one level of a pair to the other."""

    @model_validator(mode="after")
    def _skip_fits(self) -> Self:
        if self.skip >= self.points:
            raise ValueError(f"skip = {self.skip} leaves no pair on a grid of points = {self.points}: lower skip")
        return self


class TuningConfig(Section):
    """Pairs whose gap is proportional to the noise level (ECT, arXiv 2406.14548)."""

    gap_ratio: float = Field(default=0.75, gt=0, lt=1)
    """The nearer point of a pair lies at this share of the noisier one's sigma, at the start and at high noise."""
    halvings: NonNegativeInt = 0
    """How often the gap is halved while the student trains, at even intervals; ECT: 7 from a `gap_ratio` of 0.5."""
    widening: float = Field(default=0.0, ge=0)
    """Widens the gap at low noise, to 1 + widening / 2 times its size; ECT: 8."""
    snap_below: PositiveFloat = 0.02
    """Pairs whose nearer point falls below this sigma end at sigma_min."""
    weighting: Literal["even", "inverse_gap"] = "even"
    """`inverse_gap`: a pair weighs 1 over the difference of its noise levels, as in ECT."""


class ScmConfig(Section):
    """The limit of vanishing gaps (sCM, arXiv 2410.11081). It needs no solver, distance or average of the student."""

    normalisation: PositiveFloat = 0.1
    """c of the tangent's normalisation g / (|g| + c), |g| in root mean square of the latents."""
    warmup: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps over which the student turns from its teacher's denoiser into a consistency function."""


class PhasedConfig(Section):
    """Consistency within phases of the trajectory (PCM, arXiv 2405.18407)."""

    edges: list[PositiveFloat] = [4.0, 1.5, 0.6]
    """Noise levels at which the trajectory is cut, falling. The student draws in one step more than there are edges,
    and in no other number."""
    gap_ratio: float = Field(default=0.75, gt=0, lt=1)
    """The nearer point of a pair lies at this share of the noisier one's sigma, or at the phase's end."""


class MatchingConfig(Section):
    """Distribution matching beside the objective (DMD, arXiv 2311.18828). It needs captions alone."""

    weight: float = Field(default=0.0, ge=0)
    """Weight of the term; 0 leaves it out, and the critic with it."""
    start: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the critic learns by itself what the student draws."""
    guidance_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the guidance beyond 1 that the teacher keeps where drawings are compared with it. With all of it they
    agree with captions at the cost of variety."""
    critic_rate: PositiveFloat = 4.0
    """The critic's learning rate in multiples of the student's."""
    sigmas: list[PositiveFloat] = [80.0, 8.0, 2.0, 0.5]
    """Noise levels, falling, that the student jumps from in training; a batch takes the first few of them."""
    sigma_mean: float = -0.2
    """Mean of ln sigma of the levels at which critic and teacher are compared."""
    sigma_std: PositiveFloat = 1.4
    """Standard deviation of that ln sigma."""


class LoraSettings(Section):
    """Low-rank adapters in place of training all weights (LoRA, arXiv 2106.09685), for a small card."""

    rank: NonNegativeInt = 0
    """Rank of the adapters on attention and dense feed-forwards; 0 trains all weights and has no adapters."""
    alpha: PositiveFloat = 64.0
    """An adapter's product counts alpha / rank times."""
