"""Preconditioning: a raw network as a denoiser and as a consistency function."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy (B, C, H, W), sigma (B,)) -> an estimate of the clean sample, (B, C, H, W)."""


class Network(Protocol):
    """The raw network F of EDM, such as MicroDiT.

    `latents` (B, C, H, W); `c_noise` (B,) or (1,); `captions` (N, L, C), N <= B, of the first N samples, the others
    have the null caption; `guidance` (B,) or None. Returns (B, C, H, W).
    """

    def __call__(
        self, latents: Tensor, c_noise: Tensor, captions: Tensor, guidance: Tensor | None = None
    ) -> Tensor: ...


class Scalings(NamedTuple):
    """Factors of the output c_skip x + c_out F(c_in x; c_noise), each of sigma's shape."""

    skip: Tensor
    out: Tensor
    input: Tensor
    noise: Tensor


def edm_scalings(sigma: Tensor, sigma_data: float) -> Scalings:
    """EDM's preconditioning (arXiv 2206.00364, table 1); sigma must be positive."""
    total = sigma**2 + sigma_data**2
    return Scalings(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data / total.sqrt(),
        input=1 / total.sqrt(),
        noise=sigma.log() / 4,
    )


def consistency_scalings(sigma: Tensor, sigma_data: float, sigma_min: float) -> Scalings:
    """The consistency model's preconditioning (arXiv 2303.01469, appendix C): the identity at sigma_min."""
    above = sigma - sigma_min
    edm = edm_scalings(sigma, sigma_data)
    return edm._replace(skip=sigma_data**2 / (above**2 + sigma_data**2), out=edm.out * (above / sigma))


def apply_scalings(
    network: Network, scalings: Scalings, x: Tensor, captions: Tensor, guidance: Tensor | None = None
) -> Tensor:
    """c_skip x + c_out F(c_in x; c_noise), with the sum in the precision of `x`.

    Scalings have shape (B,) or (1,).
    """
    skip, out, scale = (factor.view(-1, 1, 1, 1).to(x.dtype) for factor in scalings[:3])
    output = network(scale * x, scalings.noise.to(x.dtype), captions, guidance)
    return skip * x + out * output.to(x.dtype)


def edm_denoiser(network: Network, sigma_data: float, captions: Tensor, guidance: Tensor | None = None) -> Denoiser:
    """The network as EDM's denoiser D(x; sigma) (arXiv 2206.00364, eq. 7).

    Args:
        captions: (N, L, C), N <= B. guidance: scales (B,), for a network with a guidance embedder.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return apply_scalings(network, edm_scalings(sigma, sigma_data), x, captions, guidance)

    return denoise


def consistency_function(
    network: Network, sigma_data: float, sigma_min: float, captions: Tensor, guidance: Tensor | None
) -> Denoiser:
    """The network as a consistency function f(x, sigma), which maps to the trajectory's start at sigma_min.

    Args:
        captions: (B, L, C). guidance: scales (B,), for a network with a guidance embedder.
    """

    def jump(x: Tensor, sigma: Tensor) -> Tensor:
        scalings = consistency_scalings(sigma, sigma_data, sigma_min)
        return apply_scalings(network, scalings, x, captions, guidance)

    return jump


def jump_to(function: Denoiser, x: Tensor, sigma: Tensor, edge: Tensor, sigma_min: float) -> Tensor:
    """From x at sigma to `edge`, along the straight line between x and the function's prediction at sigma_min.

    This is DDIM's step (arXiv 2010.02502) with that prediction as the clean sample, and a consistency function for the
    phase that begins at `edge`: the identity there (arXiv 2405.18407, section 3.1). A jump to sigma_min is the function
    itself.

    Args:
        function: a consistency function, which maps to sigma_min.
        x: (B, C, H, W).
        sigma, edge: (B,) or (1,), sigma_min <= edge <= sigma.

    Returns:
        (B, C, H, W).
    """
    share = torch.where(sigma > edge, (edge - sigma_min) / (sigma - sigma_min), 1).view(-1, 1, 1, 1).to(x.dtype)
    predicted = function(x, sigma)
    return predicted + share * (x - predicted)
