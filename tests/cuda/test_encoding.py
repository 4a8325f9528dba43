"""A batch of images and one of captions through networks of full size, walked on tensors that say they are on a GPU."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lcm_distill.api import DFN5B_CLIP, SDXL_VAE
from lcm_distill.config import Dtype
from lcm_distill.encoders.images import ImageEncoder, load_image_encoder
from lcm_distill.encoders.text import load_text_encoder
from tests.cuda.walk import walking

CARD = torch.device("cuda:0")
DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


class Operators(TorchDispatchMode):
    """Counts them by name."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[func._opname] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waits(monkeypatch):
    with walking(monkeypatch) as waits:
        yield waits


def images_on_the_card(dtype: Dtype) -> ImageEncoder:
    with torch.device("meta"):
        encoder = load_image_encoder(SDXL_VAE, "random", dtype)
    encoder.vae.to_empty(device="cpu")
    return encoder.to("cuda")


@DTYPES
def test_images_are_encoded_by_fused_kernels_and_nothing_waits(waits, dtype):
    encoder, pixels, noise = (
        images_on_the_card(dtype),
        torch.zeros(2, 512, 512, 3, dtype=torch.uint8),
        torch.zeros(2, 4, 64, 64),
    )
    with Operators() as operators:
        latents = encoder.encode_pixels(pixels, noise)
    assert (latents.shape, latents.dtype, latents.device) == ((2, 4, 64, 64), torch.float32, CARD)
    assert waits.copies == [] and waits.numbers == []
    assert operators.count["group_norm"] == 22 and operators.count["sum_with_bias"] == 10
    # What would be passes over whole activations; the images themselves are divided once.
    assert not {"native_group_norm", "silu", "constant_pad_nd", "clone"} & set(operators.count)
    assert operators.count["div"] == 1


@DTYPES
def test_latents_are_decoded_by_fused_kernels(waits, dtype):
    encoder, latents = images_on_the_card(dtype), torch.zeros(2, 4, 64, 64, device=CARD)
    with Operators() as operators:
        images = encoder.decode(latents)
    assert (images.shape, images.dtype, images.device) == ((2, 3, 512, 512), torch.float32, CARD)
    assert operators.count["group_norm"] == 30 and operators.count["sum_with_bias"] == 14
    assert not {"native_group_norm", "silu"} & set(operators.count)


@DTYPES
def test_captions_are_encoded_and_nothing_waits(waits, dtype):
    with torch.device("meta"):
        encoder = load_text_encoder(DFN5B_CLIP, "random", dtype)
    encoder.tower.to_empty(device="cpu")
    embeddings = encoder.to("cuda").encode(["a red fox in the snow", ""])
    assert (embeddings.shape, embeddings.dtype, embeddings.device) == ((2, 77, 1024), torch.float32, CARD)
    assert waits.copies == [] and waits.numbers == []
