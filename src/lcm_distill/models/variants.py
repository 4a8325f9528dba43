"""The variants of MicroDiT."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """Sizes of one MicroDiT.

    Attributes:
        dim, depth: width and number of the backbone's blocks. head_dim: width of an attention head.
        mixer_dim, mixer_depth: width and number of the patch mixer's blocks.
        multiple_of: hidden widths of feed-forwards are rounded up to a multiple of it.
        mixer_mlp_ratio: hidden width of the mixer's feed-forwards over their width.
        qkv_ratios, mlp_ratios: in the backbone, from the first block to the last, growing linearly.
        experts: in an expert layer. expert_capacity: average number of experts that take a token.
        experts_every: every n-th block has experts.
        patch_size: latent pixels to a patch, along each side.
    """

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
        """Width of self-attention over the width of the backbone block `layer`."""
        return _interpolate(self.qkv_ratios, layer, self.depth)

    def mlp_ratio(self, layer: int) -> float:
        """Hidden width of the feed-forward over the width of the backbone block `layer`."""
        return _interpolate(self.mlp_ratios, layer, self.depth)

    def has_experts(self, layer: int, mixer: bool) -> bool:
        """Whether a block of the mixer or the backbone has experts; the last block of the backbone never has."""
        return (layer + 1) % self.experts_every == 0 and (mixer or layer < self.depth - 1)


def _interpolate(ends: tuple[float, float], layer: int, depth: int) -> float:
    # The last value is exact, as in numpy's linspace: widths are rounded up from it.
    return ends[1] if layer == depth - 1 else ends[0] + layer * ((ends[1] - ends[0]) / (depth - 1))


VARIANTS = {
    "MicroDiT_XL_2": Variant(dim=1024, depth=28, head_dim=64, mixer_dim=768, mixer_depth=6),
    "MicroDiT_Tiny_2": Variant(dim=512, depth=16, head_dim=32, mixer_dim=512, mixer_depth=4),
    # Not published: small enough to train on two CPU cores.
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
