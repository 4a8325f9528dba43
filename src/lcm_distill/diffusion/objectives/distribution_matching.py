"""Distribution matching: what the student draws shall be as likely to its teacher as what it learnt from.

The other objectives follow the teacher's trajectories one by one, and a student can be no better than they. This term
compares distributions: a critic learns to denoise what the student draws, and where critic and teacher disagree, the
student's drawings move to where the teacher finds them likelier (Distribution Matching Distillation,
arXiv 2311.18828). Captions are all it needs; there are no clean samples in it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lcm_distill.diffusion.guidance import guided
from lcm_distill.diffusion.preconditioning import Denoiser

Judge = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(noisy (B, C, H, W), sigma (B,)) -> what the teacher makes of it and what the critic does, each as noisy."""


def judge(
    teacher: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    learning: Denoiser,
    matched: Tensor,
    assumed: Tensor,
) -> Judge:
    """The teacher at the guidance `matched`, and as the critic the one at `assumed` moved by what `learning` learnt.

    A critic in this form knows from its first step what a student draws that follows the guided teacher, though the
    network that learns begins as the teacher without guidance. What is assumed must be one scale for all: a student
    that does not tell scales apart yet draws alike at all of them, and a critic that takes each at its word sends the
    drawings of high scales down and of low ones up, until the student has unlearnt what it was to learn.

    The teacher that is matched has less guidance than the one whose trajectories are followed, because the guided
    denoiser is no distribution's: its trajectories end wider than it would have them. With Gaussians N(0, s^2) for the
    caption and N(0, S^2) without, trajectories guided by w end in a standard deviation of s^w S^(1 - w), while at high
    noise the guided denoiser asks for a variance of w s^2 - (w - 1) S^2, which may be below zero.

    Args:
        teacher: (noisy, sigma) -> the teacher's denoised with captions and without, as `both_branches` has it.
        learning: started as the teacher without guidance. It alone receives a gradient.
        matched: (B,), the guidance of the teacher that drawings shall be as likely to.
        assumed: (1,), the guidance that drawings are taken to have before the critic has learnt better.
    """

    def compare(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            conditional, null = teacher(x, sigma)
            likelier = guided(conditional, null, matched)
            ahead = guided(conditional, null, assumed) - conditional
        return likelier, learning(x, sigma) + ahead

    return compare


def matching_loss(compare: Judge, drawn: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """A loss whose gradient in `drawn` is that of KL(student || teacher) at a noise level, normalised.

    The scores' difference (arXiv 2311.18828, eq. 7) is that of the denoisers over sigma squared; each sample's is
    divided by how far its drawing lies from what the teacher makes of it (eq. 8), so that all levels weigh alike.

    Args:
        compare: called without gradient.
        drawn: (B, C, H, W), the student's drawings, with gradient.
        noise: (B, C, H, W), standard normal. sigma: (B,), positive.

    Returns:
        (B,): half the mean square of the step that a drawing is told to take.
    """
    with torch.no_grad():
        likelier, likely = compare(drawn + sigma.view(-1, 1, 1, 1) * noise, sigma)
        distance = (drawn - likelier).abs().mean(dim=(1, 2, 3), keepdim=True)
        goal = drawn - (likely - likelier) / distance.clamp(min=torch.finfo(drawn.dtype).tiny)
    return (drawn - goal).square().mean(dim=(1, 2, 3)) / 2


def last_alone(jump: Denoiser, calls: int) -> Denoiser:
    """`jump`, which receives a gradient in the last of so many calls alone (backward simulation of arXiv 2405.14867).

    A sampler that is given it draws as it does for a user, and training needs the memory of one step.
    """
    left = calls

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        with torch.set_grad_enabled(left == 0):
            return jump(x, sigma)

    return counted
