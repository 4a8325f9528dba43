"""Networks as a training calls them: on their device, over the ranks, in the chosen precision."""

from contextlib import AbstractContextManager

from lcm_distill.config import EngineConfig
from lcm_distill.diffusion.preconditioning import Network
from lcm_distill.models import MicroDiT
from lcm_distill.stages.engine.blocks import blocks_of, compile_each, recompute_activations
from lcm_distill.stages.engine.precision import float32_parts, in_bfloat16, keep_float32, lower
from lcm_distill.stages.engine.spread import Replicated, held_back, shard
from lcm_distill.stages.engine.world import World


class Engine:
    """Prepares networks. What it is given it changes in place; what it returns is to be called.

    Attributes:
        settings: the configuration's `[engine]`.
        world: the processes that train together.
    """

    def __init__(self, settings: EngineConfig, world: World) -> None:
        self.settings, self.world = settings, world
        self._replicated: list[Replicated] = []

    @property
    def low_precision(self) -> bool:
        """Whether networks compute in bfloat16."""
        return self.settings.precision == "bfloat16"

    def trained(self, network: MicroDiT) -> Network:
        """A network that receives gradients. Its weights stay float32."""
        if self.settings.activation_checkpointing:
            recompute_activations(blocks_of(network))
        self._place(network)
        if self.settings.sharding == "fsdp" or self.world.size == 1:
            return self._computed(network)
        self._replicated.append(Replicated(network, self.world))
        return self._computed(self._replicated[-1])

    def averaged(self, network: MicroDiT) -> Network:
        """A moving average, called without gradients. Its weights stay float32, or small changes would be lost."""
        self._place(network)
        return self._computed(network)

    def frozen(self, network: MicroDiT) -> Network:
        """A network that does not change: its weights are held in the precision it computes in."""
        if self.low_precision:
            lower(network, float32_parts(network))
        self._place(network)
        return self._computed(network)

    def held_back(self, hold: bool) -> AbstractContextManager[None]:
        """A pass whose gradients stay on their rank, if `hold`, until the step's last one."""
        return held_back(self._replicated, hold)

    def _place(self, network: MicroDiT) -> None:
        network.to(self.world.device)
        if self.low_precision:
            keep_float32(float32_parts(network), self.world.device)
        if self.settings.compile:
            compile_each(blocks_of(network))
        if self.settings.sharding == "fsdp":
            shard(network, blocks_of(network), self.world)

    def _computed(self, network: Network) -> Network:
        return in_bfloat16(network, self.world.device) if self.low_precision else network
