"""The objective a teacher is trained with."""

from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser


def denoising_loss(
    denoise: Denoiser, clean: Tensor, noise: Tensor, sigma: Tensor, sigma_data: float, seen: Tensor | None = None
) -> Tensor:
    """EDM's weighted squared error (arXiv 2206.00364, eq. 2 and table 1), a mean over each sample's values.

    Args:
        denoise: in training, for the captions of the batch.
        clean, noise: (B, C, H, W); noise is standard normal. sigma: (B,), positive.
        seen: (B, 1, H, W), 1 where values count and 0 where a masked patch is; None counts all.

    Returns:
        (B,), about 1 for EDM's preconditioning of a network that returns 0.
    """
    denoised = denoise(clean + sigma.view(-1, 1, 1, 1) * noise, sigma)
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    errors = (denoised - clean).square()
    if seen is None:
        return weight * errors.mean(dim=(1, 2, 3))
    return weight * (errors.mean(dim=1, keepdim=True) * seen).sum(dim=(1, 2, 3)) / seen.sum(dim=(1, 2, 3))
