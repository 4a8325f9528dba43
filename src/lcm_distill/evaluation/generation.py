"""Images of captions, generated in batches that fit the memory and in what the device computes fast in."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lcm_distill.api import TextToImage
from lcm_distill.config import Config
from lcm_distill.encoders.batches import FittingBatches

GenerationDtype = Literal["float32", "bfloat16"]


def generation_dtype(config: Config) -> GenerationDtype:
    """What `evaluate.dtype` stands for on the configured device.

    The process that plans asks, and opens no GPU by asking: its workers have GPUs of their own.
    """
    if config.evaluate.dtype != "auto":
        return config.evaluate.dtype
    on_gpu = torch.cuda.is_available() if config.device == "auto" else config.device.startswith("cuda")
    return "bfloat16" if on_gpu else "float32"


def batch_generator(model: TextToImage, steps: int, guidance: float, seed: int, batch_size: int) -> FittingBatches:
    """A function of captions and image ids, sequences of one length, to images uint8 (n, H, W, 3) on the CPU.

    Noise is addressed by seed and image id, so images do not depend on the batches they are generated in.

    Args:
        steps, guidance, seed: as `TextToImage.generate` has them.
        batch_size: images to one pass, while that many fit the memory.
    """

    def generate(captions: Sequence[str], image_ids: Sequence[int]) -> Tensor:
        images = model.generate(captions, steps, guidance, seed, image_ids=image_ids)
        return (images * 255).round().byte().permute(0, 2, 3, 1).cpu()

    return FittingBatches(generate, batch_size, "generate one image: set evaluate.dtype = bfloat16, or free it")
