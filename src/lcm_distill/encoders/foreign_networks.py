# safetensors has partial types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Networks that somebody else's files describe: their sizes are bounded before anything is allocated."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lcm_distill.core.json import parse_json
from lcm_distill.core.regular_files import read_regular

LARGEST_CONFIG = 1_000_000
"""Bytes of a configuration file; those in use have a few thousand."""
MOST_PARAMETERS = 4_000_000_000
"""Of an encoder or feature extractor; those in use have 2 billion at most."""


def read_config(file: Path) -> dict[str, Any]:
    """The JSON object in a configuration file.

    Raises:
        OSError: it is not there, too large, or no regular file.
        ValueError: it is no JSON object.
    """
    content = parse_json(read_regular(file, LARGEST_CONFIG))
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return cast(dict[str, Any], content)


def require_few_parameters(network: nn.Module, most: int = MOST_PARAMETERS) -> None:
    """Check the size of a network that was built on the meta device, where it takes no memory.

    Raises:
        ValueError: it has more than `most` parameters.
    """
    if (count := sum(parameter.numel() for parameter in network.parameters())) > most:
        raise ValueError(f"its configuration describes {count:,} parameters, more than {most:,}")


def stored_shapes(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights on the meta device: their names and shapes, and no values.

    Raises:
        OSError, RuntimeError, ValueError, SafetensorError: it cannot be read.
    """
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as content:
            names = list(content.keys())
            return {name: torch.empty(content.get_slice(name).get_shape(), device="meta") for name in names}
    stored = torch.load(file, map_location="meta", weights_only=True)
    if not isinstance(stored, dict):
        raise ValueError(f"{file.name} holds no tensors by name")
    return {str(name): value for name, value in stored.items() if isinstance(value, Tensor)}
