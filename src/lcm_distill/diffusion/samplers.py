"""From noise to samples: solvers of the probability-flow ODE, and the samplers of teachers and students.

A sampler is a value: how many steps, at which sigmas. Teachers take `Heun` or `Euler`, students `Consistency`,
`Phased` or `Original`; the same value samples, names folders of images and counts network evaluations.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from lcm_distill.core.device import to_device
from lcm_distill.diffusion.noise import karras_sigmas, require_falling
from lcm_distill.diffusion.preconditioning import Denoiser, jump_to

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


SOLVERS: dict[str, Solver] = {"euler": euler_step, "heun": heun_step}
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


@dataclass(frozen=True)
class Consistency:
    """The multistep consistency sampler: denoise, add fresh noise, denoise again (arXiv 2303.01469, algorithm 1).

    Attributes:
        sigmas: falling, above sigma_min, where a consistency function is the identity.
        sigma_min: where the consistency function maps to.

    Raises:
        UserError: sigmas do not fall, are not finite or lie below sigma_min.
    """

    sigmas: tuple[float, ...]
    sigma_min: float = 0.002

    def __post_init__(self) -> None:
        require_falling("sigmas", self.sigmas, self.sigma_min)

    @property
    def name(self) -> str:
        """See `Sampler`."""
        return "consistency"

    @property
    def steps(self) -> int:
        """See `Sampler`."""
        return len(self.sigmas)

    def evaluations(self, guided: bool) -> int:
        """See `Sampler`; guidance is an input of the network and costs nothing."""
        del guided
        return self.steps

    def __call__(self, function: Denoiser, noise: Noise) -> Tensor:
        """See `Sampler`; every step takes its own noise."""
        x = noise(0)
        sigmas = to_device(torch.tensor(self.sigmas, dtype=torch.float64), x.device)
        x = function(x * sigmas[0].to(x.dtype), sigmas[:1])
        for step in range(1, self.steps):
            x = consistency_step(function, x, sigmas[step : step + 1], self.sigma_min, noise(step))
        return x

    def started_at(self, sigma: float) -> Self:
        """The sampler of a trajectory's point at `sigma`: a jump from there, and the steps that lie below."""
        return replace(self, sigmas=(sigma, *(own for own in self.sigmas if own < sigma)))


@dataclass(frozen=True)
class Deterministic:
    """Jumps of a consistency function without fresh noise: each keeps what it takes for the noise of its sample.

    A sample goes down the straight line to where its jump leads, as in DDIM (arXiv 2010.02502), as far as the next
    sigma. So all steps belong to one sample of noise, which only the first draws.

    Attributes:
        sigmas: falling, above sigma_min.
        sigma_min: where the consistency function maps to.

    Raises:
        UserError: sigmas do not fall, are not finite or lie below sigma_min.
    """

    sigmas: tuple[float, ...]
    sigma_min: float = 0.002

    def __post_init__(self) -> None:
        require_falling("sigmas", self.sigmas, self.sigma_min)

    @property
    def name(self) -> str:
        """See `Sampler`."""
        return "deterministic"

    @property
    def steps(self) -> int:
        """See `Sampler`."""
        return len(self.sigmas)

    def evaluations(self, guided: bool) -> int:
        """See `Sampler`; guidance is an input of the network and costs nothing."""
        del guided
        return self.steps

    def __call__(self, function: Denoiser, noise: Noise) -> Tensor:
        """See `Sampler`; only the noise of step 0 is used."""
        x = noise(0)
        sigmas = to_device(torch.tensor([*self.sigmas, self.sigma_min], dtype=torch.float64), x.device)
        x = x * sigmas[0].to(x.dtype)
        for sigma, sigma_next in pairwise(sigmas):
            x = jump_to(function, x, sigma[None], sigma_next[None], self.sigma_min)
        return x

    def started_at(self, sigma: float) -> Self:
        """The sampler of a trajectory's point at `sigma`: a jump from there, and the steps that lie below."""
        return replace(self, sigmas=(sigma, *(own for own in self.sigmas if own < sigma)))


@dataclass(frozen=True)
class Phased(Deterministic):
    """From edge to edge of the phases, without fresh noise (PCM, arXiv 2405.18407, section 3.1).

    Attributes:
        sigmas: upper edges of the phases that the student was trained within, falling, above sigma_min.
        sigma_min: lower edge of the last phase, where the last step ends.
    """

    @property
    def name(self) -> str:
        """See `Sampler`."""
        return "phased"


@dataclass(frozen=True)
class Original:
    """The sampler of the published consistency student of MicroDiT: EDM's schedule down to sigma_min.

    The last of several steps is at sigma_min, where a consistency function is the identity: n steps give the samples of
    n - 1, and cost one evaluation more. Figures of that student are reproduced with it; `Consistency` wastes none.

    Attributes:
        steps: number of steps. sigma_min, sigma_max, rho: of EDM's schedule.
    """

    steps: int
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    @property
    def name(self) -> str:
        """See `Sampler`."""
        return "original"

    @property
    def sigmas(self) -> tuple[float, ...]:
        """See `Sampler`."""
        return tuple(map(float, karras_sigmas(self.steps, self.sigma_min, self.sigma_max, self.rho)[:-1]))

    def evaluations(self, guided: bool) -> int:
        """See `Sampler`; guidance is an input of the network and costs nothing."""
        del guided
        return self.steps

    def __call__(self, function: Denoiser, noise: Noise) -> Tensor:
        """See `Sampler`; every step takes its own noise."""
        return Consistency(self.sigmas, self.sigma_min)(function, noise)

    def started_at(self, sigma: float) -> Consistency:
        """See `Consistency`."""
        return Consistency(self.sigmas, self.sigma_min).started_at(sigma)


FewStepSampler = Consistency | Deterministic | Original
"""Samplers of students; a `Phased` one is `Deterministic`."""


def few_step_sampler(sigmas: tuple[float, ...], sigma_min: float, fresh_noise: bool) -> Consistency | Deterministic:
    """A student's sampler without phases: with fresh noise `Consistency`, otherwise `Deterministic`."""
    return Consistency(sigmas, sigma_min) if fresh_noise else Deterministic(sigmas, sigma_min)
