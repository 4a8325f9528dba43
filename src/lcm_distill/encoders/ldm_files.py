# safetensors ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""A VAE's weights in files of the original latent diffusion code (LDM), alone or in a whole checkpoint."""

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
"""Prefixes of a VAE's weights; training checkpoints also hold losses and averages."""


def ldm_share(file: Path) -> dict[str, Tensor]:
    """The VAE's weights in a file of the original code, without the prefix of a whole checkpoint.

    Raises:
        ValueError: it holds none.
    """
    with safe_open(file, "pt") as content:
        for prefix in ("first_stage_model.", ""):
            starts = tuple(prefix + part for part in PARTS)
            share = [name for name in content.keys() if name.startswith(starts)]  # noqa: SIM118
            if share:
                return {name.removeprefix(prefix): content.get_tensor(name) for name in share}
    raise ValueError("it holds no VAE")
