"""Noise, and the noise levels at which a term of the loss looks at samples, by seed, stream, step and address."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcm_distill.config import DiffusionConfig
from lcm_distill.core.device import to_device
from lcm_distill.core.randomness import normal
from lcm_distill.diffusion.noise import lognormal_sigmas


@dataclass(frozen=True)
class NoiseDraws:
    """The draws of one term.

    Attributes:
        seed: of the training's random numbers.
        mean, std: of ln sigma, which is normal within the range of `diffusion`.
        device: where the draws go.
    """

    seed: int
    mean: float
    std: float
    diffusion: DiffusionConfig
    device: torch.device

    def noise_and_sigma(
        self, stream: str, step: int, addresses: np.ndarray, shape: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Standard normal noise (B, *shape) and noise levels (B,), of the streams `STREAM noise` and `STREAM sigma`."""
        draws = to_device(normal(self.seed, f"{stream} sigma", step, addresses, ()), self.device)
        sigma = lognormal_sigmas(draws, self.mean, self.std, self.diffusion.sigma_min, self.diffusion.sigma_max)
        return to_device(normal(self.seed, f"{stream} noise", step, addresses, shape), self.device), sigma
