"""Features of latents from a MicroDiT."""

import torch
from torch import Tensor

from lcm_distill.models.microdit import MicroDiT


@torch.no_grad()
def token_features(network: MicroDiT, latents: Tensor, c_noise: Tensor, captions: Tensor) -> Tensor:
    """Mean and standard deviation over the tokens at the input of the network's last layer.

    A teacher's feature space compares generated latents with data without decoding and without another network.

    Args:
        latents, c_noise, captions: as in `MicroDiT.forward`.

    Returns:
        (B, 2 dim), in the network's dtype.
    """
    inputs: list[Tensor] = []
    hook = network.final_layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        network(latents, c_noise, captions)
    finally:
        hook.remove()
    return torch.cat([inputs[0].mean(dim=1), inputs[0].std(dim=1)], dim=1)
