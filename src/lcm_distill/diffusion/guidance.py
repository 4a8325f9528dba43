"""Classifier-free guidance (arXiv 2207.12598)."""

from collections.abc import Callable

import torch
from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser, Network, edm_denoiser


def denoiser_at(network: Network, sigma_data: float, captions: Tensor, guidance: float) -> Denoiser:
    """EDM's denoiser at one guidance scale for all samples; at 1, which is no guidance, it costs half.

    Args:
        captions: (B, L, C). guidance: 1 or more.
    """
    if guidance == 1:
        return edm_denoiser(network, sigma_data, captions)
    return guided_denoiser(network, sigma_data, captions, captions.new_full((1,), guidance, dtype=torch.float32))


def guided_denoiser(network: Network, sigma_data: float, captions: Tensor, guidance: Tensor) -> Denoiser:
    """EDM's denoiser with classifier-free guidance; at guidance 1 it is the conditional one.

    Both branches are computed at every scale; see `denoiser_at` for one scale.

    Args:
        captions: (B, L, C). guidance: scales (B,) or (1,), 1 or more.
    """
    branches = both_branches(network, sigma_data, captions)
    return lambda x, sigma: guided(*branches(x, sigma), guidance)


def both_branches(
    network: Network, sigma_data: float, captions: Tensor
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The conditional and the unconditional branch of guidance, in one network call.

    The second half of the doubled batch has no captions, so that the network gives it the null caption.

    Args:
        captions: (B, L, C).

    Returns:
        (x (B, C, H, W), sigma (B,) or (1,)) -> denoised with captions and with the null caption, each (B, C, H, W).
    """
    branches = edm_denoiser(network, sigma_data, captions)

    def denoise(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        sigma = sigma.expand(x.shape[0])
        conditional, null = branches(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        return conditional, null

    return denoise


def guided(conditional: Tensor, null: Tensor, guidance: Tensor) -> Tensor:
    """Denoised samples with guidance, null + guidance * (conditional - null).

    Args:
        conditional, null: (B, C, H, W). guidance: scales (B,) or (1,).

    Returns:
        (B, C, H, W), of conditional's dtype.
    """
    strength = (guidance - 1).view(-1, 1, 1, 1).to(conditional.dtype)
    return conditional + strength * (conditional - null)
