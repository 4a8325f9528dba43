# The types of torch.from_numpy are partial.
# pyright: reportUnknownMemberType=false
"""Images on their way into shards of latents: from decoded images to batches, and from encoded batches to rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import crc32c
import numpy as np
import torch
from torch import Tensor

from lcm_distill.core.randomness import normal, stable_hash
from lcm_distill.data.cache.manifest_rows import SampleRow
from lcm_distill.data.sources.record_validation import readable
from lcm_distill.data.transforms import CONVERTED, decode, resize_and_crop
from lcm_distill.formats.images import UnusableImage
from lcm_distill.pipeline.manifest import OK, QUARANTINED
from lcm_distill.pipeline.task import Task


@dataclass
class ImageShard:
    """A shard of latents that is being filled.

    Images of a shard come in the order in which the source reads them, whatever other shards are being filled, and are
    encoded in batches of that order: an interrupted run makes the same batches, and so the same bytes, again.

    Attributes:
        resolution: height and width at which images are encoded, in pixels.
        samples: rows of the catalog.
        latents: float16 (samples, C, h, w), NaN until encoded and where an image is unusable.
        rows: the manifest rows of the samples.
        waiting: indices and pixels of images that are decoded and not encoded.
    """

    task: Task
    resolution: int
    samples: list[dict[str, Any]]
    latents: np.ndarray
    rows: list[SampleRow] = field(init=False)
    waiting: list[tuple[int, np.ndarray]] = field(init=False, default_factory=list[tuple[int, np.ndarray]])

    def __post_init__(self) -> None:
        self.rows = [
            {"kind": "image", "field": self.task.inputs["field"], "sample_id": sample["sample_id"],
             "row": sample["row"], "shard": self.task.inputs["shard"], "source": sample["path"],
             "caption_row": sample["caption_row"], "split": sample["split"]}
            for sample in self.samples
        ]  # fmt: skip

    def quarantine(self, index: int, reason: str) -> None:
        """Quarantine a sample; its latents become NaN."""
        self.latents[index] = np.nan
        self.rows[index] |= {"status": QUARANTINED, "error": reason}

    def batch(self, seed: int, last: bool) -> "ImageBatch":
        """The waiting images, which are then no longer waiting.

        Args:
            seed: of the noise of the posterior.
            last: whether no more images of the shard will come.
        """
        indices, crops = [index for index, _ in self.waiting], [crop for _, crop in self.waiting]
        self.waiting.clear()
        # Addressed by the sample's identifier: the noise does not depend on batch, worker or order.
        names = [stable_hash(self.samples[index]["sample_id"]) for index in indices]
        noise = [normal(seed, "posterior", 0, [name], self.latents.shape[1:]) for name in names]
        if not indices:
            return ImageBatch(self, [], torch.empty(0), torch.empty(0), last)
        return ImageBatch(self, indices, torch.from_numpy(np.stack(crops)), torch.cat(noise), last)

    def fill(self, indices: Sequence[int], latents: np.ndarray) -> None:
        """Store the latents of encoded images; quarantine images whose latents are not finite."""
        self.latents[indices] = latents
        for index in indices:
            if not np.isfinite(self.latents[index]).all():
                self.quarantine(index, "latents are not finite")


@dataclass(frozen=True)
class ImageBatch:
    """Images of a shard that are encoded together.

    Attributes:
        indices: of the images in the shard; empty if no image of the last batch of a shard is usable.
        pixels: uint8 (B, H, W, 3).
        noise: (B, C, h, w), standard normal, which determines the samples from the posterior.
        last: whether the shard is complete once these are encoded.
    """

    shard: ImageShard
    indices: list[int]
    pixels: Tensor
    noise: Tensor
    last: bool


@dataclass(frozen=True)
class CroppedImage:
    """A decoded image.

    Attributes:
        size: width and height of the image file. bytes, checksum: its size and CRC-32C.
        crops: uint8 (H, W, 3), one for each resolution.
        note: about its colours, for the manifest.
    """

    size: tuple[int, int]
    bytes: int
    checksum: int
    crops: list[np.ndarray]
    note: str | None


@dataclass
class RowRange:
    """The images of a range of rows, and the shards at each resolution that they are encoded into.

    Attributes:
        left: number of images that have not been added.
    """

    shards: list[ImageShard]
    left: int

    def crop(self, content: bytes | UnusableImage, min_size: int, version: int) -> CroppedImage | UnusableImage:
        """Decode an image and crop it for each shard; returns the reason if it is unusable.

        Args:
            version: of the transforms, as `Cache.transform`.
        """
        if isinstance(content, UnusableImage):
            return content
        try:
            image = decode(content, min_size, version)
        except UnusableImage as reason:
            return reason
        crops = [resize_and_crop(image, shard.resolution, version) for shard in self.shards]
        return CroppedImage(image.size, len(content), crc32c.crc32c(content), crops, image.info.get(CONVERTED))

    def add(self, index: int, image: CroppedImage | UnusableImage) -> None:
        """Add the image of a sample to each shard, or quarantine the sample."""
        self.left -= 1
        for number, shard in enumerate(self.shards):
            if isinstance(image, UnusableImage):
                shard.quarantine(index, readable(image))
                continue
            width, height = image.size
            shard.rows[index] |= {"width": width, "height": height, "image_bytes": image.bytes,
                                  "image_crc32c": image.checksum, "status": OK}  # fmt: skip
            if image.note is not None:
                shard.rows[index]["note"] = readable(image.note)
            shard.waiting.append((index, image.crops[number]))
