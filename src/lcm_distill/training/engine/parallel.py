"""Networks over ranks: replicated by DistributedDataParallel, or sharded by FSDP2."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from lcm_distill.training.engine.world import World


class Replicated:
    """A network whose gradients are means over the ranks, after each backward pass that is not held back.

    Without gradients it is the network itself, which needs nobody else.
    """

    def __init__(self, network: nn.Module, world: World) -> None:
        devices = [world.device] if world.device.type == "cuda" else None
        self.alone, self.together = network, DistributedDataParallel(network, devices, gradient_as_bucket_view=True)

    def __call__(
        self, latents: Tensor, c_noise: Tensor, captions: Tensor, guidance: Tensor | None = None, *kept: Tensor
    ) -> Tensor:
        """The network's answer; `kept`: the patches it goes on with, if not all."""
        network = self.together if torch.is_grad_enabled() else self.alone
        return network(latents, c_noise, captions, guidance, *kept)


def shard(network: nn.Module, blocks: Sequence[nn.Module], world: World) -> None:
    """Split every parameter over the ranks; a block's are gathered while it computes (FSDP2, arXiv 2304.11277).

    Parameters are gathered and gradients averaged in the dtype that the parameters have.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    for part in (*blocks, network):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


@contextmanager
def held_back(networks: Sequence[Replicated], hold: bool) -> Iterator[None]:
    """Passes whose gradients wait for a later pass of the same step before they travel, if `hold`."""
    with ExitStack() as stack:
        for network in networks:
            if hold:
                stack.enter_context(network.together.no_sync())
        yield


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, in one piece; every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_weights(network: nn.Module) -> dict[str, Tensor]:
    """A network's weights on the CPU, by name, in one piece on the first rank; every rank must ask.

    Other ranks get an empty dictionary.
    """
    first = not dist.is_initialized() or dist.get_rank() == 0
    weights: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        gathered = whole(tensor)
        if first:
            weights[name] = gathered.cpu()
    return weights
