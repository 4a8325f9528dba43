# The types that diffusers declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportPrivateImportUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""A VAE without weights, from its configuration, and whether stored weights are those that it describes."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lcm_distill.encoders.foreign_networks import read_config, require_few_parameters, stored_shapes
from lcm_distill.encoders.vae_config import MOST_PARAMETERS, require_vae_config

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Parts of names that earlier versions of diffusers wrote, and what they are called now."""


def empty_vae(config: Path) -> "AutoencoderKL":
    """The VAE of a `config.json` on the meta device, which takes no memory.

    Raises:
        OSError: the file cannot be read.
        ValueError: it describes no VAE, or one larger than any.
    """
    require_vae_config(read_config(config))
    with torch.device("meta"):
        vae = build_vae(config)
    require_few_parameters(vae, MOST_PARAMETERS)
    return vae


def build_vae(config: Path) -> "AutoencoderKL":
    """A randomly initialised VAE from a `config.json` that was checked."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_config(read_config(config))


def require_fit(config: Path, weights: Path | None) -> None:
    """Check a configuration, and that weights by diffusers' names are those that it describes; nothing is allocated.

    Raises:
        ValueError: it describes no VAE, or weights are missing or unexpected.
        RuntimeError: a weight has another shape.
    """
    empty = empty_vae(config)
    if weights is None:
        return
    shapes = dict[str, Tensor]()
    for name, tensor in stored_shapes(weights).items():
        for old, new in OLD_NAMES.items():
            name = name.replace(old, new) if ".attentions." in name else name
        shapes[name] = tensor
    found = empty.load_state_dict(shapes, strict=False)
    require_all(found.missing_keys, found.unexpected_keys)


def require_all(missing: list[str], unexpected: list[str]) -> None:
    """Check that no weights are missing or unexpected, whose names these are.

    Raises:
        ValueError: some are.
    """
    if missing or unexpected:
        raise ValueError(f"missing weights: {_few(sorted(missing))}; unexpected weights: {_few(sorted(unexpected))}")


def _few(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:2])}{' ...' if len(names) > 2 else ''})" if names else "none"
