"""Images and weights that anyone can rebuild, and what text2image-benchmark's code made of them.

`t2i_benchmark.json` and `.npz`: bytes after preprocessing, features of the network with these weights, a distance.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lcm_distill.metrics.inception_extractor import build_inception

REFERENCE = Path(__file__).parents[1] / "reference"
FACTS = json.loads((REFERENCE / "t2i_benchmark.json").read_text())
FEATURES = np.load(REFERENCE / "t2i_benchmark_features.npz")

SIZES = [(512, 512), (640, 480), (333, 500), (256, 256), (1024, 768), (299, 299), (517, 389), (300, 900)]


def recorded_image(i: int) -> Image.Image:
    """One of 32, of eight sizes."""
    w, h = SIZES[i % 8]
    x, y, c = np.arange(w)[None, :, None], np.arange(h)[:, None, None], np.arange(3)[None, None, :]
    wave = np.sin(2 * np.pi * ((i % 5 + 1) * x / w * (c + 1) + (i % 7 + 1) * y / h * (3 - c)) + i + c)
    values = 127.5 + 127 * wave * np.cos(0.9 * (x + (c + 1) * y) / (3 + i % 11))
    return Image.fromarray(np.floor(values).astype(np.uint8))


def inception_weights() -> dict[str, torch.Tensor]:
    """A state dict whose every tensor is random, seeded by its name."""
    return {name: _seeded(name, tensor) for name, tensor in build_inception().state_dict().items()}


def _seeded(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    r = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        return 1 + 0.1 * r.abs()
    if tensor.ndim == 1:
        return 1 + 0.02 * r if name.endswith("weight") else 0.02 * r
    return r * (2 / tensor[0].numel()) ** 0.5
