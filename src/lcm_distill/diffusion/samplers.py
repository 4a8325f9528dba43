"""From noise to samples: solvers of the probability-flow ODE, and the samplers of teachers, `Heun` and `Euler`.

A sampler is a value: how many steps, at which sigmas. The same value samples, names folders of images and counts
network evaluations. Those of students are in `few_step_samplers`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Protocol

from torch import Tensor

from lcm_distill.core.device import to_device
from lcm_distill.diffusion.dpm_solver import two_stage_step
from lcm_distill.diffusion.noise import karras_sigmas
from lcm_distill.diffusion.preconditioning import Denoiser

Solver = Callable[[Denoiser, Tensor, Tensor, Tensor], Tensor]
"""(denoiser, x (B, C, H, W), sigma (B,) or (1,), next sigma of the same shape) -> x at the next sigma.

No solver reads the values of its tensors, which would wait for the GPU.
"""

Noise = Callable[[int], Tensor]
"""Step of a sampler, from 0 -> standard normal (B, C, H, W)."""


def euler_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """First order, one evaluation; the next sigma may be 0. On this ODE it is DDIM's step (arXiv 2010.02502)."""
    return x + _column(sigma_next - sigma, x) * _slope(denoise, x, sigma)


def heun_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Second order, two evaluations (arXiv 2206.00364, algorithm 1); both sigmas are above 0."""
    slope = _slope(denoise, x, sigma)
    span = _column(sigma_next - sigma, x)
    end_slope = _slope(denoise, x + span * slope, sigma_next)
    return x + span * (slope + end_slope) / 2


def consistency_step(jump: Denoiser, x: Tensor, sigma: Tensor, sigma_min: float, noise: Tensor) -> Tensor:
    """One more step of the multistep consistency sampler: noise x from sigma_min up to `sigma`, and denoise it.

    Args:
        jump: the consistency function.
        x, noise: (B, C, H, W); noise is standard normal.
        sigma: (1,), not below sigma_min, where the step changes nothing.
    """
    added = _column((sigma**2 - sigma_min**2).clamp(min=0).sqrt(), x)
    return jump(x + added * noise, sigma)


SOLVERS: dict[str, Solver] = {"euler": euler_step, "heun": heun_step, "dpmpp_2s": two_stage_step}
"""Solvers by the names that configurations give them."""


def _slope(denoise: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    return (x - denoise(x, sigma)) / _column(sigma, x)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1).to(like.dtype)


class Sampler(Protocol):
    """How samples are generated. Samplers with equal name and sigmas generate equal samples."""

    @property
    def name(self) -> str:
        """`heun`, `euler`, `consistency`, `phased` or `original`."""
        ...

    @property
    def steps(self) -> int:
        """Number of steps."""
        ...

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Sigmas at which the steps begin, falling, (steps,)."""
        ...

    def evaluations(self, guided: bool) -> int:
        """Network evaluations (NFE) per sample.

        Args:
            guided: whether guidance other than 1 is applied.
        """
        ...

    def __call__(self, function: Denoiser, noise: Noise) -> Tensor:
        """Samples (B, C, H, W), in the noise's dtype, without waiting for the GPU.

        Args:
            function: a denoiser for `Heun` and `Euler`, a consistency function for those of students.
            noise: standard normal of each step that takes some; the first sigma scales that of step 0 here.
        """
        ...


@dataclass(frozen=True)
class _ProbabilityFlow:
    """EDM's deterministic sampler: the probability-flow ODE down EDM's schedule (arXiv 2206.00364, algorithm 1).

    The last step, to sigma 0, is Euler's: the ODE has no slope there.
    """

    steps: int
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    solver: ClassVar[Solver]

    @property
    def sigmas(self) -> tuple[float, ...]:
        """See `Sampler`."""
        return tuple(map(float, karras_sigmas(self.steps, self.sigma_min, self.sigma_max, self.rho)[:-1]))

    def __call__(self, function: Denoiser, noise: Noise) -> Tensor:
        """See `Sampler`; only the noise of step 0 is used."""
        x = noise(0)
        sigmas = karras_sigmas(self.steps, self.sigma_min, self.sigma_max, self.rho)
        sigmas = to_device(sigmas, x.device)[:, None]
        x = x * sigmas[0].to(x.dtype)
        *steps, last = pairwise(sigmas)
        for sigma, sigma_next in steps:
            x = type(self).solver(function, x, sigma, sigma_next)
        return euler_step(function, x, *last)


@dataclass(frozen=True)
class Heun(_ProbabilityFlow):
    """EDM's deterministic sampler with Heun's method."""

    solver: ClassVar[Solver] = staticmethod(heun_step)

    @property
    def name(self) -> str:
        """See `Sampler`."""
        return "heun"

    def evaluations(self, guided: bool) -> int:
        """See `Sampler`; with guidance both branches count."""
        return (2 * self.steps - 1) * (2 if guided else 1)


@dataclass(frozen=True)
class Euler(_ProbabilityFlow):
    """EDM's deterministic sampler with Euler's method, which is DDIM (arXiv 2010.02502)."""

    solver: ClassVar[Solver] = staticmethod(euler_step)

    @property
    def name(self) -> str:
        """See `Sampler`."""
        return "euler"

    def evaluations(self, guided: bool) -> int:
        """See `Sampler`; with guidance both branches count."""
        return self.steps * (2 if guided else 1)


TEACHER_SAMPLERS = {"heun": Heun, "euler": Euler}
"""Samplers of teachers by the names of their solvers."""
