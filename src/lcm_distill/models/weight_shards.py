"""Weights in several safetensors files with an index, as the Hugging Face Hub has them."""
# safetensors has partial types.
# pyright: reportUnknownVariableType=false

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lcm_distill.models.checkpoint import seal_description
from lcm_distill.models.checkpoint_description import METADATA
from lcm_distill.models.weight_files import INDEX

INDEX_FILE = "model.safetensors" + INDEX

SHARD_BYTES = 2 * 10**9
"""Most bytes of a shard, unless one tensor has more."""


def write_shards(
    folder: Path, weights: Mapping[str, Tensor], description: Mapping[str, Any], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write weights into a folder that exists: shards in the order of names, and an index with the description.

    Args:
        weights, description: as `models.checkpoint.serialise` takes them.
    """
    from safetensors.torch import save_file

    shards = _divided(weights, shard_bytes)
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for file, names in zip(files, shards, strict=True):
        save_file({name: weights[name].cpu().contiguous() for name in names}, folder / file, {"format": "pt"})
    sealed = seal_description(description, weights)
    metadata = {"total_size": sum(tensor.nbytes for tensor in weights.values()), METADATA: sealed}
    places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": metadata, "weight_map": places}, indent=2))


def _divided(weights: Mapping[str, Tensor], shard_bytes: int) -> list[list[str]]:
    """Names of the tensors of each shard."""
    shards, size = list[list[str]](), 0
    for name in sorted(weights):
        if not shards or size + weights[name].nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += weights[name].nbytes
    return shards
