"""The objective of a teacher."""

from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser


def denoising_loss(
    denoise: Denoiser, clean: Tensor, noise: Tensor, sigma: Tensor, sigma_data: float, mask: Tensor | None = None
) -> Tensor:
    """EDM's weighted squared error (arXiv 2206.00364, eq. 2 and table 1), a mean over each sample's values.

    Args:
        denoise: the denoiser in training.
        clean, noise: (B, C, H, W); noise is standard normal.
        sigma: (B,), positive.
        mask: (B, 1, H, W), 1 where values count and 0 in masked patches; None counts all.

    Returns:
        (B,), about 1 for EDM's preconditioning of a network that returns 0.
    """
    denoised = denoise(clean + sigma.view(-1, 1, 1, 1) * noise, sigma)
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    errors = (denoised - clean).square()
    if mask is None:
        return weight * errors.mean(dim=(1, 2, 3))
    return weight * (errors.mean(dim=1, keepdim=True) * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))
