"""Computing in bfloat16 with float32 weights, and what is kept in float32 all the same."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lcm_distill.diffusion.preconditioning import Network
from lcm_distill.models import MicroDiT
from lcm_distill.models.experts import ExpertChoice


def in_bfloat16(network: Callable[..., Tensor], device: torch.device) -> Network:
    """A network whose products are taken in bfloat16 (autocast); its sums over blocks and its norms stay float32."""

    def call(
        latents: Tensor, c_noise: Tensor, captions: Tensor, guidance: Tensor | None = None, *kept: Tensor
    ) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network(latents, c_noise, captions, guidance, *kept)

    return call


def float32_parts(network: MicroDiT) -> list[nn.Module]:
    """What bfloat16 would cost more than it saves: see `benchmarks/precision.py`.

    The embeddings of noise level and guidance scale, which tell a pair's two points apart; the last layer, whose output
    is what they are compared by; and the experts' gates, which would send a token elsewhere for one of the two.
    """
    gates = [module.gate for module in network.modules() if isinstance(module, ExpertChoice)]
    embedders = [part for part in (network.t_embedder, network.cfg_embedder) if part is not None]
    return [*embedders, network.final_layer, *gates]


def keep_float32(parts: Iterable[nn.Module], device: torch.device) -> None:
    """Take modules out of autocast."""
    for part in parts:
        _keep_float32(part, device)


def _keep_float32(part: nn.Module, device: torch.device) -> None:
    forward = part.forward

    def exact(*inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            return forward(*(value.float() for value in inputs))

    part.forward = exact


def lower(network: nn.Module, kept: Iterable[nn.Module]) -> None:
    """Hold a network's matrices in bfloat16, but those of the modules that are `kept`; vectors and buffers stay."""
    exact = {id(parameter) for part in kept for parameter in part.parameters()}
    for parameter in network.parameters():
        if parameter.dim() > 1 and id(parameter) not in exact:
            parameter.data = parameter.data.bfloat16()
