"""The consistency objective: neighbouring points of a teacher's trajectory must map to the same start."""

import torch
from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser
from lcm_distill.diffusion.solvers import Solver


def shrink_sigma(sigma: Tensor, ratio: float, sigma_min: float, snap_below: float) -> Tensor:
    """The nearer point of a pair: `ratio` times sigma, or sigma_min once that falls below `snap_below`.

    The gap is proportional to sigma, as in Easy Consistency Tuning (arXiv 2406.14548); below `snap_below` the
    pair is anchored at the boundary, where the consistency function is the identity.
    """
    nearer = sigma * ratio
    return torch.where(nearer < snap_below, torch.full_like(sigma, sigma_min), nearer)


def consistency_loss(
    student: Denoiser,
    target: Denoiser,
    teacher: Denoiser,
    solver: Solver,
    clean: Tensor,
    noise: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    huber: float,
) -> Tensor:
    """Consistency distillation (arXiv 2303.01469, eq. 7) with a pseudo-Huber distance (arXiv 2310.14189).

    One solver step of the teacher takes the noisy sample from sigma to sigma_next; there `target` says where the
    trajectory starts, and `student` must say the same at sigma. Only the student receives a gradient.

    Args:
        student, target: consistency functions. teacher: a denoiser, guided or not.
        clean, noise: (B, C, H, W); noise is standard normal.
        sigma, sigma_next: (B,), sigma above sigma_next.
        huber: c of sqrt(d^2 + c^2) - c, where d is the root mean square over a sample's values.

    Returns:
        (B,).
    """
    noisy = clean + sigma.view(-1, 1, 1, 1) * noise
    with torch.no_grad():
        goal = target(solver(teacher, noisy, sigma, sigma_next), sigma_next)
    squared = (student(noisy, sigma) - goal).square().mean(dim=(1, 2, 3))
    return (squared + huber**2).sqrt() - huber
