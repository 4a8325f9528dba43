"""Classifier-free guidance (arXiv 2207.12598)."""

import torch
from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser, Network, edm_denoiser


def guided_denoiser(network: Network, sigma_data: float, captions: Tensor, guidance: Tensor) -> Denoiser:
    """EDM's denoiser moved away from the null caption by `guidance`; both branches go through in one call.

    Samples beyond those that captions are given for have the null caption: the network computes it once for all. At
    guidance 1 the result is the conditional denoiser itself, and when every sample asks for 1 the null branch is not
    computed.

    Args:
        captions: (B, L, C). guidance: (B,), 1 or more.
    """
    if bool((guidance == 1).all()):
        return edm_denoiser(network, sigma_data, captions)
    both = edm_denoiser(network, sigma_data, captions)
    strength = guidance.view(-1, 1, 1, 1)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.expand(x.shape[0])
        conditional, null = both(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        return conditional + (strength - 1).to(x.dtype) * (conditional - null)

    return denoise
