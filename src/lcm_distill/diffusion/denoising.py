"""The objective a teacher is trained with."""

from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser


def denoising_loss(denoise: Denoiser, clean: Tensor, noise: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """EDM's weighted squared error (arXiv 2206.00364, eq. 2 and table 1), a mean over each sample's values.

    Args:
        denoise: in training, for the captions of the batch.
        clean, noise: (B, C, H, W); noise is standard normal. sigma: (B,), positive.

    Returns:
        (B,), about 1 for EDM's preconditioning of a network that returns 0.
    """
    denoised = denoise(clean + sigma.view(-1, 1, 1, 1) * noise, sigma)
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    return weight * (denoised - clean).square().mean(dim=(1, 2, 3))
