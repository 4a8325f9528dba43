"""Networks over several ranks: replicated by DistributedDataParallel, or sharded by FSDP2."""

from collections.abc import Generator, Sequence
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
    """A module whose gradients are averaged over the ranks in each backward pass outside `no_sync`.

    Calls without gradients go to the network itself and need no communication.

    Attributes:
        module: the module. ddp: the same in DistributedDataParallel.
    """

    def __init__(self, module: nn.Module, world: World) -> None:
        devices = [world.device] if world.device.type == "cuda" else None
        self.module, self.ddp = module, DistributedDataParallel(module, devices, gradient_as_bucket_view=True)

    def call(self, *inputs: Tensor | None) -> Tensor:
        """The module's output."""
        return self.ddp(*inputs) if torch.is_grad_enabled() else self.module(*inputs)


class DdpNetwork(Replicated):
    """A replicated MicroDiT, to be called like one."""

    def __call__(
        self, latents: Tensor, c_noise: Tensor, captions: Tensor, guidance: Tensor | None = None, *kept: Tensor
    ) -> Tensor:
        """The network's output, as `MicroDiT.forward`; `kept` holds the kept patches of a masked pass."""
        return self.call(latents, c_noise, captions, guidance, *kept)


def shard(network: nn.Module, blocks: Sequence[nn.Module], world: World) -> None:
    """Shard every parameter over the ranks, in place (FSDP2, arXiv 2304.11277).

    A block's parameters are gathered while it computes. Parameters are gathered and gradients averaged in the dtype of
    the parameters.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    for part in (*blocks, network):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


@contextmanager
def no_sync(networks: Sequence[Replicated], enabled: bool) -> Generator[None]:
    """Accumulate gradients on each rank without averaging them, if `enabled`; a pass outside averages the sum."""
    with ExitStack() as stack:
        for network in networks:
            if enabled:
                stack.enter_context(network.ddp.no_sync())
        yield


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded. A collective call: every rank must make it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """A network's unsharded weights on the CPU of rank 0, and an empty dictionary on other ranks.

    A collective call: every rank must make it.
    """
    is_main = not dist.is_initialized() or dist.get_rank() == 0
    weights: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        gathered = full_tensor(tensor)
        if is_main:
            weights[name] = gathered.cpu()
    return weights
