# Triton's functions are typed for its own compiler, not for pyright.
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
"""Kernels of `kernels.group_norm`, over channels-last images. Sums have a fixed order, so results are deterministic."""

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 512
"""Pixels whose moments one program computes."""
TILE_PIXELS, TILE_CHANNELS = 32, 128
"""Pixels and channels that a program holds in registers at a time."""


@triton.jit
def _chunk_moments(
    x, means, deviations, pixels, channels,
    chunk: tl.constexpr, tile_pixels: tl.constexpr, tile_channels: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations of each channel over a chunk of pixels, both (N, chunks, channels)."""
    number, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * tile_channels + tl.arange(0, tile_channels)
    valid_channel = channel < channels
    first = number * chunk
    count = tl.minimum(pixels - first, chunk)
    x += (image * pixels + first) * channels
    # Sums of squares about a value of the data itself do not cancel, however far from zero the channel is.
    pivot = tl.load(x + channel, mask=valid_channel, other=0).to(tl.float32)
    total = tl.zeros((tile_pixels, tile_channels), tl.float32)
    squares = tl.zeros((tile_pixels, tile_channels), tl.float32)
    for start in range(0, chunk, tile_pixels):
        pixel = start + tl.arange(0, tile_pixels)
        valid = (pixel < count)[:, None] & valid_channel[None, :]
        value = tl.load(x + pixel[:, None] * channels + channel[None, :], mask=valid, other=0).to(tl.float32)
        deviation = tl.where(valid, value - pivot[None, :], 0.0)
        total += deviation
        squares += deviation * deviation
    mean = tl.sum(total, axis=0) / count
    place = (image * tl.num_programs(0) + number) * channels + channel
    tl.store(means + place, pivot + mean, mask=valid_channel)
    tl.store(deviations + place, tl.sum(squares, axis=0) - mean * mean * count, mask=valid_channel)


@triton.jit
def _scale_and_shift(
    means, deviations, weight, bias, input_bias, scale, shift, pixels, channels, eps,
    chunk: tl.constexpr, group: tl.constexpr, tile_chunks: tl.constexpr, tile_channels: tl.constexpr,
    has_input_bias: tl.constexpr,
):  # fmt: skip
    """Scale and shift of each channel that apply the norm, float32 (N, channels), from the moments of its chunks."""
    image, chunks = tl.program_id(1).to(tl.int64), tl.cdiv(pixels, chunk)
    member = tl.arange(0, tile_channels)
    channel = tl.program_id(0) * group + member
    valid_channel = member < group
    offset = tl.zeros((tile_channels,), tl.float32)
    if has_input_bias:
        offset += tl.load(input_bias + channel, mask=valid_channel, other=0).to(tl.float32)
    total = tl.zeros((tile_chunks, tile_channels), tl.float32)
    for start in range(0, chunks, tile_chunks):
        number = start + tl.arange(0, tile_chunks)
        valid = (number < chunks)[:, None] & valid_channel[None, :]
        place = (image * chunks + number)[:, None] * channels + channel[None, :]
        count = tl.minimum(pixels - number * chunk, chunk)[:, None]
        total += tl.where(valid, (tl.load(means + place, mask=valid, other=0) + offset[None, :]) * count, 0.0)
    mean = tl.sum(tl.sum(total, axis=1), axis=0) / pixels / group
    total = tl.zeros((tile_chunks, tile_channels), tl.float32)
    for start in range(0, chunks, tile_chunks):
        number = start + tl.arange(0, tile_chunks)
        valid = (number < chunks)[:, None] & valid_channel[None, :]
        place = (image * chunks + number)[:, None] * channels + channel[None, :]
        count = tl.minimum(pixels - number * chunk, chunk)[:, None]
        distance = tl.load(means + place, mask=valid, other=0) + offset[None, :] - mean
        within = tl.load(deviations + place, mask=valid, other=0)
        total += tl.where(valid, within + distance * distance * count, 0.0)
    variance = tl.sum(tl.sum(total, axis=1), axis=0) / pixels / group
    factor = tl.load(weight + channel, mask=valid_channel, other=0).to(tl.float32) * tl.rsqrt(variance + eps)
    summand = tl.load(bias + channel, mask=valid_channel, other=0).to(tl.float32) + (offset - mean) * factor
    tl.store(scale + image * channels + channel, factor, mask=valid_channel)
    tl.store(shift + image * channels + channel, summand, mask=valid_channel)


@triton.jit
def _normalise(
    x, scale, shift, out, pixels, channels,
    silu: tl.constexpr, tile_pixels: tl.constexpr, tile_channels: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * tile_pixels + tl.arange(0, tile_pixels)
    channel = tl.program_id(1) * tile_channels + tl.arange(0, tile_channels)
    valid_channel = channel < channels
    valid = (pixel < pixels)[:, None] & valid_channel[None, :]
    place = (image * pixels + pixel)[:, None] * channels + channel[None, :]
    factor = tl.load(scale + image * channels + channel, mask=valid_channel, other=0)
    summand = tl.load(shift + image * channels + channel, mask=valid_channel, other=0)
    value = tl.load(x + place, mask=valid, other=0).to(tl.float32) * factor[None, :] + summand[None, :]
    if silu:
        value = value * tl.sigmoid(value)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=valid)


@triton.jit
def _sum_with_bias(x, other, bias, out, pixels, channels, tile_pixels: tl.constexpr, tile_channels: tl.constexpr):
    pixel = tl.program_id(0).to(tl.int64) * tile_pixels + tl.arange(0, tile_pixels)
    channel = tl.program_id(1) * tile_channels + tl.arange(0, tile_channels)
    valid_channel = channel < channels
    valid = (pixel < pixels)[:, None] & valid_channel[None, :]
    place = pixel[:, None] * channels + channel[None, :]
    value = tl.load(x + place, mask=valid, other=0).to(tl.float32)
    value += tl.load(other + place, mask=valid, other=0).to(tl.float32)
    value += tl.load(bias + channel, mask=valid_channel, other=0).to(tl.float32)[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), mask=valid)


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, input_bias: Tensor | None, out: Tensor
) -> None:
    """Compute `out`, channels-last; see `kernels.group_norm`."""
    images, channels, height, width = x.shape
    pixels, group = height * width, channels // groups
    chunks, tile = triton.cdiv(pixels, CHUNK), min(TILE_CHANNELS, triton.next_power_of_2(channels))
    means, deviations = x.new_empty((2, images, chunks, channels), dtype=torch.float32)
    scale, shift = x.new_empty((2, images, channels), dtype=torch.float32)
    across = triton.cdiv(channels, tile)
    _chunk_moments[chunks, across, images](x, means, deviations, pixels, channels, CHUNK, TILE_PIXELS, tile)
    _scale_and_shift[groups, images](
        means, deviations, weight, bias, input_bias, scale, shift, pixels, channels, eps,
        CHUNK, group, TILE_PIXELS, triton.next_power_of_2(group), input_bias is not None,
    )  # fmt: skip
    _normalise[triton.cdiv(pixels, TILE_PIXELS), across, images](
        x, scale, shift, out, pixels, channels, silu, TILE_PIXELS, tile
    )


def sum_with_bias(x: Tensor, other: Tensor, bias: Tensor, out: Tensor) -> None:
    """Compute `out`, channels-last; see `kernels.group_norm`."""
    images, channels, height, width = x.shape
    pixels, tile = images * height * width, min(TILE_CHANNELS, triton.next_power_of_2(channels))
    _sum_with_bias[triton.cdiv(pixels, TILE_PIXELS), triton.cdiv(channels, tile)](
        x, other, bias, out, pixels, channels, TILE_PIXELS, tile
    )
