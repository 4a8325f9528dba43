"""A trajectory in phases: what a consistency function says of a phase's end."""

import torch
from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser


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
