"""The encoders of a configuration, loaded when they are first needed and checked against the configuration."""

from collections.abc import Sequence
from functools import cached_property
from threading import Lock

from torch import Tensor

from lcm_distill.config import EncodersConfig, ModelConfig
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.encoders.adaptive_batches import AdaptiveBatches
from lcm_distill.encoders.images import ImageEncoder, load_image_encoder
from lcm_distill.encoders.text import TextEncoder, load_text_encoder


class ConfiguredEncoders:
    """Image and text encoder on one device. Batches that do not fit its memory are halved.

    Args:
        device: name of the device, as `core.device.resolve_device` takes it.
        resolutions: heights and widths of the images that are encoded, in pixels.
    """

    def __init__(self, encoders: EncodersConfig, model: ModelConfig, device: str, resolutions: Sequence[int]) -> None:
        self.encoders, self.model, self.device = encoders, model, device
        # diffusers' lazy imports fail in a second thread that begins one before the first has ended.
        self._loading = Lock()
        size = encoders.batch_size
        self._texts = AdaptiveBatches(self._encode_text_batch, size)
        self._pixels = {resolution: AdaptiveBatches(self._encode_pixel_batch, size) for resolution in resolutions}

    def encode_texts(self, captions: Sequence[str]) -> Tensor:
        """Token embeddings of captions, float16 (B, tokens, width)."""
        return self._texts(captions)

    def encode_pixels(self, resolution: int, pixels: Tensor, noise: Tensor) -> Tensor:
        """Latents of images, float16 (B, C, h, w).

        Args:
            pixels: uint8 (B, H, W, 3).
            noise: (B, C, h, w), standard normal, for the sample from the posterior.
        """
        return self._pixels[resolution](pixels, noise)

    def batch_size(self, resolution: int | None = None) -> int:
        """The most images of a resolution, or captions, that are encoded at once by now."""
        return (self._texts if resolution is None else self._pixels[resolution]).size

    @property
    def images(self) -> ImageEncoder:
        """The image encoder, which the first thread that asks for it loads while the others wait.

        Raises:
            UserError: its latents do not have the configured shape.
        """
        with self._loading:
            return self._images

    @property
    def text(self) -> TextEncoder:
        """The text encoder, as `images`.

        Raises:
            UserError: its embeddings do not have the configured width.
        """
        with self._loading:
            return self._text

    @cached_property
    def _images(self) -> ImageEncoder:
        chosen = self.encoders
        encoder = load_image_encoder(chosen.vae, chosen.weights, chosen.dtype, chosen.tiling)
        encoder = encoder.to(resolve_device(self.device))
        if (encoder.channels, encoder.downsampling) != (self.model.in_channels, chosen.downsampling):
            raise UserError(
                f"{chosen.vae} makes latents of {encoder.channels} channels, {encoder.downsampling} "
                "times smaller than the image: set model.in_channels and encoders.downsampling to that"
            )
        return encoder

    @cached_property
    def _text(self) -> TextEncoder:
        chosen = self.encoders
        encoder = load_text_encoder(chosen.text, chosen.weights, chosen.dtype).to(resolve_device(self.device))
        if encoder.width != self.model.caption_channels:
            raise UserError(
                f"{chosen.text} gives {encoder.width} channels, model.caption_channels is {self.model.caption_channels}"
            )
        return encoder

    def _encode_text_batch(self, captions: Sequence[str]) -> Tensor:
        return self.text.encode(captions).half()

    def _encode_pixel_batch(self, pixels: Tensor, noise: Tensor) -> Tensor:
        return self.images.encode_pixels(pixels, noise).half()
