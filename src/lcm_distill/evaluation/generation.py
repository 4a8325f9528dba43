"""Images of captions, generated in batches that fit the memory and in a dtype that suits the device."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lcm_distill.api import LatentConsistencyModel, TextToImage
from lcm_distill.core.errors import DataError
from lcm_distill.diffusion.samplers import Sampler
from lcm_distill.encoders.adaptive_batches import AdaptiveBatches
from lcm_distill.formats.images import tensor_to_uint8

GenerationDtype = Literal["float32", "bfloat16"]
SHOWN = 60
"""Characters of a caption that a message has at most."""


def generation_dtype(dtype: Literal["auto", "float32", "bfloat16"], device: str) -> GenerationDtype:
    """The dtype that transformer and VAE compute in while images are generated.

    The process that plans the work decides; this does not initialise a GPU, which belongs to its workers.

    Args:
        dtype: `evaluate.dtype`. `auto` stands for bfloat16 on CUDA devices and float32 on CPUs.
        device: the configured device, which may be `auto`.
    """
    if dtype != "auto":
        return dtype
    on_gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    return "bfloat16" if on_gpu else "float32"


def batch_generator(
    model: TextToImage, sampler: Sampler, guidance: float, seed: int, batch_size: int
) -> AdaptiveBatches:
    """A function of captions and image ids, of equal length, to images uint8 (n, H, W, 3) on the CPU.

    Seed and image id determine an image's noise, so images do not depend on their batches.

    Args:
        sampler, guidance, seed: as for `TextToImage.generate`.
        batch_size: images per batch; a batch that does not fit the memory is halved.
    """

    def generate(captions: Sequence[str], image_ids: Sequence[int]) -> Tensor:
        images = model.generate(captions, None, guidance, seed, image_ids=image_ids, sampler=sampler)
        finite = images.isfinite().flatten(1).all(dim=1)
        pixels = tensor_to_uint8(images).cpu()  # which waits for the device anyway
        _require_finite([bool(value) for value in finite.cpu()], captions, image_ids, model)
        return pixels

    return AdaptiveBatches(generate, batch_size, "generate one image: set evaluate.dtype = bfloat16, or free it")


def _require_finite(
    finite: Sequence[bool], captions: Sequence[str], image_ids: Sequence[int], model: TextToImage
) -> None:
    """Check that images are made of numbers.

    Args:
        finite: of each image, whether it is.

    Raises:
        DataError: one is not.
    """
    if all(finite):
        return
    first = finite.index(False)
    role = "student" if isinstance(model, LatentConsistencyModel) else "teacher"
    raise DataError(
        f"image {image_ids[first]}, of {captions[first][:SHOWN]!r}, is not finite: encoders.vae, encoders.text or the "
        f"{role} overflows in {str(model.dtype).removeprefix('torch.')} or is damaged: set evaluate.dtype=float32, or "
        "take copies that were not damaged"
    )
