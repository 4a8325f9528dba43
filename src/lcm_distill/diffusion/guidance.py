"""Classifier-free guidance (arXiv 2207.12598)."""

from collections.abc import Callable

import torch
from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser, Network, edm_denoiser


def guided_denoiser(network: Network, sigma_data: float, captions: Tensor, guidance: Tensor) -> Denoiser:
    """EDM's denoiser moved away from the null caption by `guidance`; at guidance 1 it is the conditional one.

    Both branches are computed whatever the scales: who knows that all are 1 takes `edm_denoiser` at half the cost.

    Args:
        captions: (B, L, C). guidance: (B,) or (1,), 1 or more.
    """
    branches = both_branches(network, sigma_data, captions)
    return lambda x, sigma: guided(*branches(x, sigma), guidance)


def both_branches(
    network: Network, sigma_data: float, captions: Tensor
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The denoisers with captions and without, in one call.

    Samples beyond those that captions are given for have the null caption: the network computes it once for all.

    Args:
        captions: (B, L, C).

    Returns:
        (x (B, C, H, W), sigma (B,)) -> the conditional and the null denoised, each as x.
    """
    branches = edm_denoiser(network, sigma_data, captions)

    def denoise(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        sigma = sigma.expand(x.shape[0])
        conditional, null = branches(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        return conditional, null

    return denoise


def guided(conditional: Tensor, null: Tensor, guidance: Tensor) -> Tensor:
    """Denoised (B, C, H, W) at guidance (B,) or (1,): the conditional one at 1, the null one at 0."""
    strength = (guidance - 1).view(-1, 1, 1, 1).to(conditional.dtype)
    return conditional + strength * (conditional - null)
