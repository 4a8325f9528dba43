"""Samplers of students, which take a consistency function."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from lcm_distill.core.device import to_device
from lcm_distill.diffusion.noise import karras_sigmas, require_falling
from lcm_distill.diffusion.preconditioning import Denoiser, jump_to
from lcm_distill.diffusion.samplers import Noise, consistency_step


@dataclass(frozen=True)
class _Jumps:
    """Jumps of a consistency function at sigmas of its own.

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
    def steps(self) -> int:
        """See `Sampler`."""
        return len(self.sigmas)

    def evaluations(self, guided: bool) -> int:
        """See `Sampler`; guidance is an input of the network and costs nothing."""
        del guided
        return self.steps

    def started_at(self, sigma: float) -> Self:
        """The sampler of a trajectory's point at `sigma`: a jump from there, and the steps that lie below."""
        return replace(self, sigmas=(sigma, *(own for own in self.sigmas if own < sigma)))


@dataclass(frozen=True)
class Consistency(_Jumps):
    """The multistep consistency sampler: denoise, add fresh noise, denoise again (arXiv 2303.01469, algorithm 1)."""

    @property
    def name(self) -> str:
        """See `Sampler`."""
        return "consistency"

    def __call__(self, function: Denoiser, noise: Noise) -> Tensor:
        """See `Sampler`; every step takes its own noise."""
        x = noise(0)
        sigmas = to_device(torch.tensor(self.sigmas, dtype=torch.float64), x.device)
        x = function(x * sigmas[0].to(x.dtype), sigmas[:1])
        for step in range(1, self.steps):
            x = consistency_step(function, x, sigmas[step : step + 1], self.sigma_min, noise(step))
        return x


@dataclass(frozen=True)
class Deterministic(_Jumps):
    """Jumps of a consistency function without fresh noise: each keeps what it takes for the noise of its sample.

    A sample goes down the straight line to where its jump leads, as in DDIM (arXiv 2010.02502), as far as the next
    sigma. So all steps belong to one sample of noise, which only the first draws.
    """

    @property
    def name(self) -> str:
        """See `Sampler`."""
        return "deterministic"

    def __call__(self, function: Denoiser, noise: Noise) -> Tensor:
        """See `Sampler`; only the noise of step 0 is used."""
        x = noise(0)
        sigmas = to_device(torch.tensor([*self.sigmas, self.sigma_min], dtype=torch.float64), x.device)
        x = x * sigmas[0].to(x.dtype)
        for sigma, sigma_next in pairwise(sigmas):
            x = jump_to(function, x, sigma[None], sigma_next[None], self.sigma_min)
        return x


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
