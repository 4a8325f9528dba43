"""What a difference of guidance scales makes of the same noisy samples, which lie on a trajectory of the teacher."""

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from lcm_distill.core.device import to_device
from lcm_distill.diffusion.noise import karras_sigmas
from lcm_distill.diffusion.preconditioning import Denoiser
from lcm_distill.diffusion.samplers import Noise, Sampler, heun_step

AtScale = Callable[[float], Denoiser]
"""A guidance scale -> the function that a sampler calls at this scale."""


def trajectory_point(denoise: Denoiser, noise: Tensor, sigma_max: float, sigma: float, steps: int) -> Tensor:
    """The point at `sigma` of the trajectory that starts at `sigma_max` times the noise, by `steps` steps of Heun.

    Args:
        noise: (B, C, H, W), standard normal.
        sigma: from sigma_max, where the point is the noise times sigma_max, down to above 0.

    Returns:
        (B, C, H, W), of noise's dtype.
    """
    x = noise * sigma_max
    if sigma == sigma_max:
        return x
    sigmas = to_device(karras_sigmas(steps + 1, sigma, sigma_max, rho=7.0)[:-1], x.device)[:, None]
    for upper, lower in pairwise(sigmas):
        x = heun_step(denoise, x, upper, lower)
    return x


def scale_difference(
    function: AtScale, sampler: Sampler, point: Tensor, noise: Noise, scales: tuple[float, float]
) -> Tensor:
    """Final samples at the second scale less those at the first, from the same point and the same fresh noise.

    Args:
        sampler: its first sigma is that of the point.
        point: (B, C, H, W).
        noise: standard normal of each step after the first that takes some.

    Returns:
        (B, C, H, W), of the point's dtype.
    """

    def from_point(step: int) -> Tensor:
        return noise(step) if step else point / sampler.sigmas[0]

    lower, upper = (sampler(function(scale), from_point) for scale in scales)
    return upper - lower
