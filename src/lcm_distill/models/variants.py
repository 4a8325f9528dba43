"""The sizes MicroDiT comes in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """Sizes of one MicroDiT; ratios grow linearly from the first block to the last."""

    dim: int
    depth: int
    head_dim: int
    mixer_dim: int
    mixer_depth: int
    multiple_of: int = 256
    mixer_mlp_ratio: float = 4.0
    qkv_ratios: tuple[float, float] = (0.5, 1.0)
    mlp_ratios: tuple[float, float] = (0.5, 4.0)
    experts: int = 8
    expert_capacity: float = 2.0
    experts_every: int = 2
    patch_size: int = 2

    def qkv_ratio(self, layer: int) -> float:
        """Width of self-attention over the width of the block."""
        return _interpolate(self.qkv_ratios, layer, self.depth)

    def mlp_ratio(self, layer: int) -> float:
        """Hidden width of the feed-forward over the width of the block."""
        return _interpolate(self.mlp_ratios, layer, self.depth)

    def has_experts(self, layer: int, mixer: bool) -> bool:
        """Every second block has experts; the last block of the backbone never has."""
        return (layer + 1) % self.experts_every == 0 and (mixer or layer < self.depth - 1)


def _interpolate(ends: tuple[float, float], layer: int, depth: int) -> float:
    # The last value is exact, as numpy's linspace has it: widths are rounded up from these.
    return ends[1] if layer == depth - 1 else ends[0] + layer * ((ends[1] - ends[0]) / (depth - 1))


VARIANTS = {
    "MicroDiT_XL_2": Variant(dim=1024, depth=28, head_dim=64, mixer_dim=768, mixer_depth=6),
    "MicroDiT_Tiny_2": Variant(dim=512, depth=16, head_dim=32, mixer_dim=512, mixer_depth=4),
    # Not published: small enough for the embedded default to train on two cores.
    "MicroDiT_Nano_2": Variant(
        dim=128,
        depth=4,
        head_dim=32,
        mixer_dim=128,
        mixer_depth=2,
        multiple_of=32,
        mixer_mlp_ratio=1.5,
        mlp_ratios=(0.5, 2.0),
        experts=4,
    ),
}
