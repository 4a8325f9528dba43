"""The objective a teacher is trained with."""

from torch import Tensor

from lcm_distill.diffusion.preconditioning import Network, apply_scalings, edm_scalings


def denoising_loss(
    network: Network, clean: Tensor, noise: Tensor, sigma: Tensor, captions: Tensor, sigma_data: float
) -> Tensor:
    """EDM's weighted squared error (arXiv 2206.00364, eq. 2 and table 1), a mean over each sample's values.

    Args:
        clean, noise: (B, C, H, W); noise is standard normal. sigma: (B,), positive. captions: (B, L, C).

    Returns:
        (B,), about 1 for a network that returns 0.
    """
    noisy = clean + sigma.view(-1, 1, 1, 1) * noise
    denoised = apply_scalings(network, edm_scalings(sigma, sigma_data), noisy, captions)
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    return weight * (denoised - clean).square().mean(dim=(1, 2, 3))
