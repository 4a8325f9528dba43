"""Distribution matching beside a distillation objective: the student's samples shall be as likely to the teacher.

The other objectives follow the teacher's trajectories one by one, which limits the student to their quality. This term
compares distributions: a fake score network learns to denoise the student's samples, and the difference of the real
(the teacher's) and the fake score moves these samples to where the teacher finds them likelier (Distribution Matching
Distillation, DMD, arXiv 2311.18828). It needs captions alone, no clean samples.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lcm_distill.diffusion.guidance import guided
from lcm_distill.diffusion.preconditioning import Denoiser

Scores = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(noisy (B, C, H, W), sigma (B,)) -> real and fake score as denoised samples, each (B, C, H, W)."""


def real_and_fake_scores(
    teacher: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    fake_score: Denoiser,
    real_guidance: Tensor,
    assumed_guidance: Tensor,
) -> Scores:
    """The teacher at `real_guidance`, and the fake score on top of the teacher's guidance at `assumed_guidance`.

    The fake score is the guided teacher plus what `fake_score`, which starts as the unguided teacher, has learnt since.
    So it is right from the first step about a student that follows the guided teacher. The assumed scale is one for
    all samples: a student that ignores its guidance scale at first would otherwise be pushed towards less guidance at
    high scales and towards more at low ones, and never learn the difference.

    The real score has less guidance than the teacher whose trajectories are followed, because the guided denoiser is
    not that of any distribution: its trajectories end wider than it would have them. With Gaussians N(0, s^2) for the
    caption and N(0, S^2) without, trajectories guided by w end in a standard deviation of s^w S^(1 - w), while at high
    noise the guided denoiser corresponds to a variance of w s^2 - (w - 1) S^2, which may be negative.

    Args:
        teacher: (noisy, sigma) -> denoised with captions and with the null caption, as from `both_branches`; called
            without gradient.
        fake_score: receives the gradient.
        real_guidance: (B,), guidance scales of the real score.
        assumed_guidance: (1,), the guidance scale of the student's samples as assumed at the start.
    """

    def scores(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            conditional, null = teacher(x, sigma)
            real = guided(conditional, null, real_guidance)
            assumed = guided(conditional, null, assumed_guidance) - conditional
        return real, fake_score(x, sigma) + assumed

    return scores


def matching_loss(scores: Scores, samples: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """A loss whose gradient in `samples` is that of KL(student || teacher) at a sigma, normalised.

    The difference of the scores (arXiv 2311.18828, eq. 7) is that of the denoised samples over sigma squared; it is
    divided by each sample's mean absolute distance from the real score's (eq. 8), so that all sigmas weigh alike.

    Args:
        scores: called without gradient.
        samples: (B, C, H, W), the student's, with gradient.
        noise: (B, C, H, W), standard normal. sigma: (B,), positive.

    Returns:
        (B,): half the mean square of the normalised difference.
    """
    with torch.no_grad():
        real, fake = scores(samples + sigma.view(-1, 1, 1, 1) * noise, sigma)
        distance = (samples - real).abs().mean(dim=(1, 2, 3), keepdim=True)
        target = samples - (fake - real) / distance.clamp(min=torch.finfo(samples.dtype).tiny)
    return (samples - target).square().mean(dim=(1, 2, 3)) / 2


def gradient_in_last_call(function: Denoiser, calls: int) -> Denoiser:
    """`function`, with a gradient in the last of its `calls` calls alone (backward simulation, arXiv 2405.14867).

    A sampler of `calls` steps then samples as in inference, and training needs the memory of one step.
    """
    left = calls

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        with torch.set_grad_enabled(left == 0):
            return function(x, sigma)

    return counted
