"""From a raw network to a denoiser and to a consistency function: scalings of input and output."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy (B, C, H, W), sigma (B,)) -> an estimate of the clean sample, (B, C, H, W)."""


class Network(Protocol):
    """What the raw network F takes; MicroDiT is one.

    Captions (N, L, C) are those of the first N samples; any that follow have the null caption.
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
    """The network as EDM's denoiser D(x; sigma) for captions (B, L, C), and guidance scales (B,) if it takes them."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return apply_scalings(network, edm_scalings(sigma, sigma_data), x, captions, guidance)

    return denoise


def consistency_function(
    network: Network, sigma_data: float, sigma_min: float, captions: Tensor, guidance: Tensor | None
) -> Denoiser:
    """The network as a consistency function f(x, sigma), which maps to the trajectory's start at sigma_min."""

    def jump(x: Tensor, sigma: Tensor) -> Tensor:
        scalings = consistency_scalings(sigma, sigma_data, sigma_min)
        return apply_scalings(network, scalings, x, captions, guidance)

    return jump


def jump_to(function: Denoiser, x: Tensor, sigma: Tensor, edge: Tensor, sigma_min: float) -> Tensor:
    """From x at sigma to `edge`, on the straight line between x and the function's answer at sigma_min.

    This is DDIM's step (arXiv 2010.02502) with the answer as the clean prediction, and it gives a function that is the
    identity at its edge (arXiv 2405.18407, section 3.1) whatever the network says. A jump to sigma_min is the
    function itself.

    Args:
        function: maps to sigma_min. x: (B, C, H, W).
        sigma, edge: (B,) or (1,), sigma_min <= edge <= sigma.
    """
    share = torch.where(sigma > edge, (edge - sigma_min) / (sigma - sigma_min), 1).view(-1, 1, 1, 1).to(x.dtype)
    answer = function(x, sigma)
    return answer + share * (x - answer)
