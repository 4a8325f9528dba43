# The types of torch.from_numpy are partial.
# pyright: reportUnknownMemberType=false
# PyTorch declares some of its functions without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Images to what extractors take, each exactly as the protocol's own code has it.

All take an image in RGB and give (3, H, W), values 0 to 255.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

INCEPTION_SIZE = 299


def unchanged(image: Image.Image) -> Tensor:
    """The image's own pixels, uint8."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def centre_square(image: Image.Image) -> Image.Image:
    """The largest square in the middle; an odd pixel over is left at the bottom or right."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def square_bicubic(image: Image.Image, size: int) -> Tensor:
    """text2image-benchmark (299 px) and CMMD (336 px): centre square, Pillow's bicubic on bytes; uint8."""
    return bicubic(centre_square(image), size)


def bicubic(image: Image.Image, size: int) -> Tensor:
    """dgm-eval: Pillow's bicubic on bytes to size x size whatever the shape; uint8."""
    return unchanged(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def clip(image: Image.Image, size: int) -> Tensor:
    """CLIP: Pillow's bicubic on bytes till the short side has `size` pixels, then the square in the middle; uint8."""
    short = min(image.size)
    width, height = (int(size * side / short) for side in image.size)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return unchanged(resized.crop((left, top, left + size, top + size)))


def gigagan(image: Image.Image) -> Tensor:
    """GigaGAN and DMD2: centre square, Pillow's Lanczos on bytes to 256 px, then as clean-fid; float32."""
    square = centre_square(image.convert("RGB"))
    return clean_fid(square.resize((256, 256), Image.Resampling.LANCZOS))


def clean_fid(image: Image.Image, size: int = INCEPTION_SIZE) -> Tensor:
    """clean-fid: each channel by Pillow's bicubic in float32 (arXiv 2104.11222), clipped and not rounded; float32."""
    channels = [
        np.asarray(Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC)).clip(0, 255)
        for channel in unchanged(image).float().numpy()
    ]
    return torch.from_numpy(np.stack(channels))


def torch_fidelity(image: Image.Image) -> Tensor:
    """torch-fidelity, and the first FID code: bilinear as TensorFlow 1 has it, pixel centres at their corners; float32.

    Neighbours are weighted by where source position y * H / 299 falls between them; nothing is averaged.
    """
    pixels = unchanged(image).float()
    rows, columns = (_interpolation(length) for length in pixels.shape[1:])
    return _between(_between(pixels, *columns), *((rows[0], rows[1], rows[2].unsqueeze(1))), dim=1)


def pytorch_fid(image: Image.Image) -> Tensor:
    """pytorch-fid: PyTorch's bilinear without antialiasing to 299 px; float32."""
    size = (INCEPTION_SIZE, INCEPTION_SIZE)
    pixels = unchanged(image).float().unsqueeze(0)
    return functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)[0]


def _interpolation(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper neighbour of each of the 299 positions, and the upper one's weight."""
    position = torch.arange(INCEPTION_SIZE, dtype=torch.float32) * (length / INCEPTION_SIZE)
    lower = position.long()
    return lower, (lower + 1).clamp(max=length - 1), position - lower


def _between(image: Tensor, lower: Tensor, upper: Tensor, weight: Tensor, dim: int = 2) -> Tensor:
    below = image.index_select(dim, lower)
    return below + (image.index_select(dim, upper) - below) * weight
