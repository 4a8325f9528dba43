"""Networks as a training calls them: on their device, over the ranks, in the chosen precision."""

from contextlib import AbstractContextManager

from lcm_distill.config import EngineConfig
from lcm_distill.diffusion.preconditioning import Network
from lcm_distill.models import MicroDiT
from lcm_distill.models.precision import compute_in_bfloat16, lower, refresh
from lcm_distill.training.engine.blocks import blocks_of, recompute_activations
from lcm_distill.training.engine.parallel import Replicated, held_back, shard
from lcm_distill.training.engine.world import World


class Engine:
    """Prepares networks. What it is given it changes in place; what it returns is to be called.

    Attributes:
        settings: the configuration's `[engine]`.
        world: the processes that train together.
    """

    def __init__(self, settings: EngineConfig, world: World) -> None:
        self.settings, self.world = settings, world
        self._replicated: list[Replicated] = []
        self._copied: list[MicroDiT] = []

    @property
    def low_precision(self) -> bool:
        """Whether networks compute in bfloat16."""
        return self.settings.precision == "bfloat16"

    @property
    def sharded(self) -> bool:
        """Whether weights are split over the ranks."""
        return self.settings.sharding == "fsdp"

    def trained(self, network: MicroDiT) -> Network:
        """A network that receives gradients. Its weights stay float32."""
        if self.settings.activation_checkpointing:
            recompute_activations(blocks_of(network))
        self.averaged(network)
        if self.sharded or self.world.size == 1:
            return network
        self._replicated.append(Replicated(network, self.world))
        return self._replicated[-1]

    def averaged(self, network: MicroDiT) -> Network:
        """A moving average, called without gradients. Its weights stay float32, or small changes would be lost."""
        self._place(network)
        if self.low_precision:
            compute_in_bfloat16(network, copied=not self.sharded)
            self._copied.append(network)
        self._shard(network)
        return network

    def frozen(self, network: MicroDiT) -> Network:
        """A network that does not change: its weights are held in the precision it computes in."""
        if self.low_precision:
            lower(network)
        self.stored(network)
        return network

    def stored(self, network: MicroDiT) -> None:
        """A network that is not called."""
        self._place(network)
        self._shard(network)

    def refresh(self) -> None:
        """What networks compute with follows their weights; to be called whenever these have changed."""
        for network in self._copied:
            refresh(network)

    def held_back(self, hold: bool) -> AbstractContextManager[None]:
        """A pass whose gradients stay on their rank, if `hold`, until the step's last one."""
        return held_back(self._replicated, hold)

    def _place(self, network: MicroDiT) -> None:
        if any(tensor.device != self.world.device for tensor in network.state_dict().values()):
            network.to(self.world.device)

    def _shard(self, network: MicroDiT) -> None:
        if self.sharded:
            shard(network, blocks_of(network), self.world)
