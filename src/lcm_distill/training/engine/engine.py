"""Prepares networks for a training: on their device, over the ranks, in the configured precision."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

from torch import Tensor, nn

from lcm_distill.config import EngineConfig
from lcm_distill.core.errors import UserError
from lcm_distill.diffusion.preconditioning import Network
from lcm_distill.models import MicroDiT
from lcm_distill.models.precision import cast_matrices, compute_in_bfloat16, refresh_copies
from lcm_distill.training.engine.blocks import checkpoint_activations, transformer_blocks
from lcm_distill.training.engine.parallel import DdpNetwork, Replicated, no_sync, shard
from lcm_distill.training.engine.world import World


class Engine:
    """Prepares networks in place; what a method returns is the callable that training must use.

    Attributes:
        settings: the configuration's `[engine]`.
        world: the processes that train together.
    """

    def __init__(self, settings: EngineConfig, world: World) -> None:
        self.settings, self.world = settings, world
        self._replicated: list[Replicated] = []
        self._with_copies: list[MicroDiT] = []

    @property
    def low_precision(self) -> bool:
        """Whether networks compute in bfloat16."""
        return self.settings.precision == "bfloat16"

    @property
    def sharded(self) -> bool:
        """Whether weights are sharded over the ranks."""
        return self.settings.sharding == "fsdp"

    def prepare_trained(self, network: MicroDiT) -> Network:
        """A network that receives gradients. Its weights stay float32."""
        self._checkpoint_activations(network)
        self.prepare_average(network)
        if self.sharded or self.world.size == 1:
            return network
        self._replicated.append(replicated := DdpNetwork(network, self.world))
        return replicated

    def prepare_heads(self, heads: nn.Module) -> Callable[..., Tensor]:
        """A small module that receives gradients: float32 and whole on every rank, however networks are sharded."""
        heads.to(self.world.device)
        if self.world.size == 1:
            return heads
        self._replicated.append(replicated := Replicated(heads, self.world))
        return replicated.call

    def prepare_average(self, network: MicroDiT) -> Network:
        """A moving average, called without gradients. Its weights stay float32: bfloat16 would lose small updates."""
        self._place(network)
        if self.low_precision:
            compute_in_bfloat16(network, copied=not self.sharded)
            self._with_copies.append(network)
        self._shard(network)
        return network

    def prepare_frozen(self, network: MicroDiT) -> Network:
        """A network whose weights do not change; they are held in the precision that it computes in."""
        self._checkpoint_activations(network)  # for calls with a gradient of what goes in
        if self.low_precision:
            cast_matrices(network)
        self.prepare_stored(network)
        return network

    def prepare_stored(self, network: MicroDiT) -> None:
        """A network whose weights are updated and saved, and that is never called."""
        self._place(network)
        self._shard(network)

    def refresh_copies(self) -> None:
        """Update the bfloat16 copies that networks compute with; call it after every change of weights."""
        for network in self._with_copies:
            refresh_copies(network)

    def no_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """A pass whose gradients stay on their rank, if `enabled`, until a pass outside; see `parallel.no_sync`."""
        return no_sync(self._replicated, enabled)

    def _checkpoint_activations(self, network: MicroDiT) -> None:
        if self.settings.activation_checkpointing:
            checkpoint_activations(transformer_blocks(network))

    def _place(self, network: MicroDiT) -> None:
        if any(tensor.device != self.world.device for tensor in network.state_dict().values()):
            network.to(self.world.device)

    def _shard(self, network: MicroDiT) -> None:
        if self.sharded:
            shard(network, transformer_blocks(network), self.world)


def accumulation_steps(batch_size: int, ranks: int, micro_batch: int | None) -> int:
    """Number of passes that every rank makes in a step, the same on all ranks.

    Raises:
        UserError: some rank would have a pass without samples.
    """
    largest, smallest = math.ceil(batch_size / ranks), batch_size // ranks
    count = math.ceil(largest / micro_batch) if micro_batch else 1
    if count > smallest:
        raise UserError(
            f"batch_size {batch_size} leaves some of {ranks} ranks without a sample in one of {count} passes: "
            "raise batch_size or engine.micro_batch, or start fewer ranks"
        )
    return count
