"""The student's response to its guidance scale, regressed on the teacher's.

A consistency objective learns each scale by itself: what two scales make of one noisy sample differs by less than what
it leaves wrong about either, and at sigma_max it comes from pair to pair, all the way from low noise. Here the
difference is what is learnt, between the ends of the teacher's two trajectories from the same noisy sample. What the
student has in common at both scales stays what the other terms make of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lcm_distill.diffusion.dpm_solver import follow_to_end
from lcm_distill.diffusion.objectives.pairs import Distance
from lcm_distill.diffusion.preconditioning import Denoiser

AtBoth = tuple[Denoiser, Denoiser]
"""One network at a lower and at a higher guidance scale of each sample."""


def response_loss(
    student: AtBoth, teacher: AtBoth, noisy: Tensor, sigmas: Sequence[float], distance: Distance
) -> Tensor:
    """The distance between the student's and the teacher's difference of final samples, higher scale less lower.

    Args:
        student: consistency functions. teacher: denoisers, called without gradient.
        noisy: (B, C, H, W), at the first of `sigmas`.
        sigmas: of the teacher's steps, falling.

    Returns:
        (B,).
    """
    with torch.no_grad():
        lower, higher = (follow_to_end(denoise, noisy, sigmas) for denoise in teacher)
    sigma = torch.full((len(noisy),), sigmas[0], dtype=noisy.dtype, device=noisy.device)
    own_lower, own_higher = (jump(noisy, sigma) for jump in student)
    return distance(own_higher - own_lower, higher - lower)
