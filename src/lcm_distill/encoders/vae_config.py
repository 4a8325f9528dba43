"""The configuration of a VAE that somebody else wrote: what it may say before a network is built from it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from lcm_distill.core.numbers import require_number, require_sizes

SIZES = {
    "in_channels": (3, 3),
    "out_channels": (3, 3),
    "layers_per_block": (1, 32),
    "latent_channels": (1, 1_024),
    "norm_num_groups": (1, 1_024),
}
"""Whole numbers, and the range of each; images have 3 channels."""
BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
}
"""Lists of names, and those that an `AutoencoderKL` is made of."""
WIDTHS = "block_out_channels"
MOST_BLOCKS, MOST_CHANNELS, MOST_PIXELS = 10, 16_384, 65_536
SWITCHES = ("force_upcast", "use_quant_conv", "use_post_quant_conv", "mid_block_add_attention")
MOST_PARAMETERS = 1_000_000_000
"""Of a VAE; SDXL's has 84 million."""


def require_vae_config(config: Mapping[str, Any]) -> None:
    """Check what the configuration of diffusers' `AutoencoderKL` says; keys that it lacks have diffusers' defaults.

    Raises:
        ValueError: a key has another type than it should, or a value far from any in use; one line that names it.
    """
    require_sizes(config, SIZES)
    for name, known in BLOCKS.items():
        for kind in _few(config, name):
            if kind not in known:
                raise ValueError(f"{name} has {kind!r:.60}: it must be one of {', '.join(known)}")
    for width in _few(config, WIDTHS):
        require_number(WIDTHS, width, 1, MOST_CHANNELS, whole=True)
    pixels = config.get("sample_size", 1)
    for side in _few(config, "sample_size") if isinstance(pixels, list) else [pixels]:
        require_number("sample_size", side, 1, MOST_PIXELS, whole=True)
    for name in SWITCHES:
        if not isinstance(config.get(name, True), bool):
            raise ValueError(f"{name} is {config[name]!r:.60}: it must be true or false")
    if not isinstance(config.get("act_fn", ""), str):
        raise ValueError(f"act_fn is {config['act_fn']!r:.60}: it must be the name of a function")
    if config.get("quantization_config") is not None:
        raise ValueError("it has a quantization_config: take weights that are not quantised")


def _few(config: Mapping[str, Any], name: str) -> Sequence[Any]:
    values = config.get(name, [None])
    if not isinstance(values, list) or not 0 < len(cast(list[Any], values)) <= MOST_BLOCKS:
        raise ValueError(f"{name} is {values!r:.60}: it must be a list of 1 to {MOST_BLOCKS}")
    return cast(list[Any], values) if name in config else []
