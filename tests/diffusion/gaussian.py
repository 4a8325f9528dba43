"""The closed form that tests use: data N(0, sigma_data^2), for which a network that returns 0 is exact."""

import copy
import math

import torch
from torch import Tensor, nn

from lcm_distill.diffusion.ema import update_average
from lcm_distill.diffusion.noise import lognormal_sigmas
from lcm_distill.diffusion.objectives.interface import Networks, Objective
from lcm_distill.diffusion.preconditioning import Denoiser, consistency_function

SIGMA_DATA, SIGMA_MIN, SIGMA_MAX = 0.9, 0.002, 80.0
CAPTIONS = torch.zeros(1, 1, 1)
SIGMA = torch.tensor([0.3, 1.0, 5.0, 80.0], dtype=torch.float64)


def zero_network(latents, c_noise, captions, guidance=None):
    """EDM's F of the exact denoiser."""
    return torch.zeros_like(latents)


def exact_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """E[clean | x]."""
    return x * (SIGMA_DATA**2 / (SIGMA_DATA**2 + column(sigma, x) ** 2))


def flow(x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The probability-flow ODE's exact solution from sigma to sigma_next."""
    return x * ((SIGMA_DATA**2 + column(sigma_next, x) ** 2) / (SIGMA_DATA**2 + column(sigma, x) ** 2)).sqrt()


def exact_jump(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact consistency function, which maps to sigma_min."""
    return flow(x, sigma, torch.full_like(sigma, SIGMA_MIN))


def column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1).to(like.dtype)


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def losses(objective: Objective, networks: Networks, progress: float = 0.0) -> Tensor:
    """Losses (4,) of samples of the data at `SIGMA`."""
    return objective(networks, SIGMA_DATA * noise(4, seed=5), noise(4), SIGMA, progress)


class Linear(nn.Module):
    """A network with one parameter that also depends on its captions."""

    def __init__(self, gain: float = 0.3):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))

    def forward(self, latents, c_noise, captions, guidance=None):
        shift = torch.zeros(len(latents), dtype=latents.dtype)
        shift[: len(captions)] = captions.mean(dim=(1, 2))
        return self.gain * latents + shift.view(-1, 1, 1, 1)


class ScaleBySigma(nn.Module):
    """The exact consistency function on Gaussian data is a factor at each sigma: one parameter per sigma and phase."""

    SIGMAS = 24

    def __init__(self, edges: tuple[float, ...] = ()):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(len(edges) + 1, self.SIGMAS, dtype=torch.float64))
        self.edges = torch.tensor(edges, dtype=torch.float64).log() / 4

    def forward(self, latents, c_noise, captions, guidance=None):
        low, high = math.log(SIGMA_MIN) / 4, math.log(SIGMA_MAX) / 4
        place = (c_noise - low) / (high - low) * (self.SIGMAS - 1)
        left = place.floor().clamp(0, self.SIGMAS - 2).long()
        phase = torch.searchsorted(self.edges, c_noise - 1e-9)
        share = place - left
        value = (1 - share) * self.value[phase, left] + share * self.value[phase, left + 1]
        return latents * value.view(-1, 1, 1, 1)


class SmoothScale(nn.Module):
    """The same factor as a smooth function of sigma, which has the derivative that `ScaleBySigma` lacks."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.curve = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)).double()

    def forward(self, latents, c_noise, captions, guidance=None):
        return latents * self.curve(c_noise.view(-1, 1)).view(-1, 1, 1, 1)


def consistency(network: nn.Module) -> Denoiser:
    return consistency_function(network, SIGMA_DATA, SIGMA_MIN, CAPTIONS, None)


def trained(objective: Objective, student: nn.Module, steps: int, target_decay: float = 0.95) -> Denoiser:
    """The consistency function of a student trained on Gaussian data with the exact teacher."""
    target = copy.deepcopy(student) if target_decay else student
    optimiser = torch.optim.Adam(student.parameters(), lr=0.0)
    networks = Networks(consistency(student), consistency(target), exact_denoiser)
    for step in range(steps):
        draws = torch.randn(64, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        sigma = lognormal_sigmas(draws, 0.0, 1.8, objective.lowest_sigma, SIGMA_MAX)
        sigma[:8] = SIGMA_MAX
        clean, added = SIGMA_DATA * noise(64, seed=2 * step), noise(64, seed=2 * step + 1)
        loss = objective(networks, clean, added, sigma, step / steps).mean()
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * (1 - step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if target_decay:
            update_average(target, student, target_decay)
    return consistency(student)


def gradient_at(objective: Objective, jump: Denoiser, sigma: Tensor, progress: float = 0.0) -> Tensor:
    """The loss's derivative in a factor on the function `jump`, by sigma (B,); zero where that is optimal."""
    factor = torch.ones(len(sigma), dtype=torch.float64, requires_grad=True)
    networks = Networks(lambda x, sigma: column(factor, x) * jump(x, sigma), jump, exact_denoiser)
    clean, added = SIGMA_DATA * noise(len(sigma), seed=5), noise(len(sigma))
    objective(networks, clean, added, sigma, progress).sum().backward()
    assert factor.grad is not None
    return factor.grad
