"""What a MicroDiT sees in latents."""

import torch
from torch import Tensor

from lcm_distill.models.microdit import MicroDiT


@torch.no_grad()
def token_features(network: MicroDiT, latents: Tensor, c_noise: Tensor, captions: Tensor) -> Tensor:
    """Mean and standard deviation over the tokens that enter the network's last layer.

    A teacher's features tell drawings from data without a network of another origin, and without decoding.

    Args:
        latents, c_noise, captions: as for the network itself.

    Returns:
        (B, 2 dim), of the network's dtype.
    """
    seen: list[Tensor] = []
    hook = network.final_layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        network(latents, c_noise, captions)
    finally:
        hook.remove()
    return torch.cat([seen[0].mean(dim=1), seen[0].std(dim=1)], dim=1)
