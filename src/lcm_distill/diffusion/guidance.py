"""Classifier-free guidance (arXiv 2207.12598)."""

from collections.abc import Callable

import torch
from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser, Network, edm_denoiser


def guided_denoiser(network: Network, sigma_data: float, captions: Tensor, guidance: Tensor) -> Denoiser:
    """EDM's denoiser moved away from the null caption by `guidance`; at guidance 1 it is the conditional one itself.

    Args:
        captions: (B, L, C). guidance: (B,), 1 or more.
    """
    both = guided_and_conditional(network, sigma_data, captions, guidance)
    return lambda x, sigma: both(x, sigma)[0]


def guided_and_conditional(
    network: Network, sigma_data: float, captions: Tensor, guidance: Tensor
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The guided denoiser and, at no further cost, the conditional one; both branches go through in one call.

    Samples beyond those that captions are given for have the null caption: the network computes it once for all. When
    every sample asks for guidance 1 the null branch is not computed.

    Args:
        captions: (B, L, C). guidance: (B,), 1 or more.

    Returns:
        (x (B, C, H, W), sigma (B,)) -> the two denoised, each as x.
    """
    branches = edm_denoiser(network, sigma_data, captions)
    alone = bool((guidance == 1).all())
    strength = guidance.view(-1, 1, 1, 1)

    def denoise(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        if alone:
            return (conditional := branches(x, sigma)), conditional
        sigma = sigma.expand(x.shape[0])
        conditional, null = branches(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        return conditional + (strength - 1).to(x.dtype) * (conditional - null), conditional

    return denoise
