"""From catalog rows to shards of the cache: read, decode ahead, encode, write."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcm_distill.config import Config
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.core.randomness import normal, stable_hash
from lcm_distill.data.cache.cache import (
    cache_fingerprint,
    cache_storage,
    latents_field,
    read_catalog,
    source_root,
    text_field,
)
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.data.cache.format import Field, describe, encode_shard
from lcm_distill.data.sources.interface import UnusableImage
from lcm_distill.data.sources.registry import open_source
from lcm_distill.data.transforms import decode, square
from lcm_distill.encoders.batches import FittingBatches
from lcm_distill.encoders.copies import Returning
from lcm_distill.encoders.images import ImageEncoder, load_image_encoder
from lcm_distill.encoders.text import TextEncoder, load_text_encoder
from lcm_distill.pipeline.executors.work import Execute, Outcome
from lcm_distill.pipeline.lookahead import map_ahead
from lcm_distill.pipeline.manifest import OK, QUARANTINED
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import Storage, WrittenFile
from lcm_distill.pipeline.task import Task

BATCHES_AHEAD = 2


@dataclass
class Shard:
    """Images on their way into one shard of latents.

    Images of a shard come in the order in which the source reads them, whatever other shards are under way, and
    are encoded in batches of that order: an interrupted run makes the same batches, and so the same bytes, again.

    Attributes:
        resolution: height and width that images are encoded at.
        latents: float16 (samples, C, h, w), NaN until encoded and where an image is unusable.
        rows: what the manifest will say of each sample.
        waiting: places and pixels of images that are decoded and not yet encoded.
    """

    task: Task
    resolution: int
    samples: list[dict[str, Any]]
    latents: np.ndarray
    rows: list[dict[str, Any]] = field(init=False)
    waiting: list[tuple[int, np.ndarray]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.rows = [
            {"kind": "image", "field": self.task.inputs["field"], "sample_id": sample["sample_id"],
             "row": sample["row"], "shard": self.task.inputs["shard"], "source": sample["path"],
             "caption_row": sample["caption_row"], "split": sample["split"]}
            for sample in self.samples
        ]  # fmt: skip

    def quarantine(self, place: int, reason: str) -> None:
        """Set a sample aside."""
        self.latents[place] = np.nan
        self.rows[place] |= {"status": QUARANTINED, "error": reason}

    def batch(self, seed: int, last: bool) -> "Batch":
        """What is waiting, which then waits no more."""
        places, squares = [place for place, _ in self.waiting], [square for _, square in self.waiting]
        self.waiting.clear()
        # Addressed by the sample's name: the draw does not depend on batch, worker or order.
        names = [stable_hash(self.samples[place]["sample_id"]) for place in places]
        draws = [normal(seed, "posterior", 0, [name], self.latents.shape[1:]) for name in names]
        if not places:
            return Batch(self, [], torch.empty(0), torch.empty(0), last)
        return Batch(self, places, torch.from_numpy(np.stack(squares)), torch.cat(draws), last)

    def fill(self, places: Sequence[int], latents: np.ndarray) -> None:
        """Put encoded images in their places; those that the encoder made nothing of are set aside."""
        self.latents[places] = latents
        for place in places:
            if not np.isfinite(self.latents[place]).all():
                self.quarantine(place, "latents are not finite")


@dataclass(frozen=True)
class Batch:
    """Images of a shard that are encoded together.

    Attributes:
        places: where in the shard they belong.
        pixels: uint8 (B, H, W, 3).
        noise: (B, C, h, w), which decides each one's draw from the posterior.
        last: whether these are the last of their shard. There may be none, if what was left could not be used.
    """

    shard: Shard
    places: list[int]
    pixels: Tensor
    noise: Tensor
    last: bool


@dataclass
class Page:
    """The images of a range of rows, on their way into a shard for each resolution that lacks one.

    Attributes:
        left: images that have not come yet.
    """

    shards: list[Shard]
    left: int

    def prepare(self, content: bytes | UnusableImage, min_size: int) -> "Prepared | UnusableImage":
        """Decode an image and make its square for each shard."""
        try:
            image = decode(content, min_size)
        except UnusableImage as reason:
            return reason
        return Prepared(image.size, [square(image, shard.resolution) for shard in self.shards])

    def take(self, place: int, image: "Prepared | UnusableImage") -> None:
        """Note what became of a sample's image."""
        self.left -= 1
        for number, shard in enumerate(self.shards):
            if isinstance(image, UnusableImage):
                shard.quarantine(place, str(image))
                continue
            width, height = image.size
            shard.rows[place] |= {"width": width, "height": height, "status": OK}
            shard.waiting.append((place, image.squares[number]))


@dataclass(frozen=True)
class Prepared:
    """A decoded image: width and height in its file, and uint8 (H, W, 3) squares, one a shard."""

    size: tuple[int, int]
    squares: list[np.ndarray]


def open_encoding(config: Config, run: RunFolder, device: str | None) -> Execute:
    """Ready to encode into the cache that is being made, on a device other than the configured one if one is given."""
    cache = cache_storage(config, run)
    return Encoding(config, run, cache, read_catalog(cache), device or config.device).execute


class Encoding:
    """Executes the tasks of `stages.cache.plan`. Encoders load when the first task needs them."""

    def __init__(self, config: Config, run: RunFolder, cache: Storage, catalog: Catalog, device: str) -> None:
        self.config, self.run, self.cache, self.catalog = config, run, cache, catalog
        self.device = device
        self._image_encoder: ImageEncoder | None = None
        self._text_encoder: TextEncoder | None = None
        size = config.encoders.batch_size
        self._encode_texts = FittingBatches(self._encode_text_batch, size)
        self._encode_pixels = {
            resolution: FittingBatches(self._encode_pixel_batch, size) for resolution in config.data.resolutions
        }

    def execute(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Encode captions and images; tell of each shard when it is written.

        While a shard is written the next batches are encoded, and while a batch is encoded the next ones are made and
        queued behind it on the GPU.
        """
        for kind, same in groupby(tasks, key=lambda task: task.inputs["kind"]):
            if kind == "caption":
                for task, embeddings in map_ahead(self._embed, same, workers=1, ahead=1):
                    yield task, *self._finish_captions(task, embeddings.numpy())
            else:
                for batch, latents in map_ahead(self._encode, self._batches(same), workers=1, ahead=BATCHES_AHEAD):
                    batch.shard.fill(batch.places, latents.numpy())
                    if batch.last:
                        yield batch.shard.task, *self._finish_images(batch.shard)

    def _embed(self, task: Task) -> tuple[Task, Returning]:
        texts = [row["caption"] for row in _rows(self.catalog.captions, task)]
        return task, Returning(self._encode_texts(texts))

    def _finish_captions(self, task: Task, embeddings: np.ndarray) -> tuple[list[dict[str, Any]], WrittenFile]:
        stored = text_field(self.config, len(self.catalog.captions), embeddings.shape[1])
        attributes = {
            "encoder": self.config.encoders.text,
            "weights": self.config.encoders.weights,
            "units": "last hidden state after the final norm",
        }
        file, checksums = self._write(stored, task.inputs["shard"], embeddings, attributes)
        rows = [
            {"kind": "caption", "field": stored.name, "row": row["row"], "shard": task.inputs["shard"],
             "caption_row": row["row"], "split": row["split"], "status": OK, "checksum": checksum}
            for row, checksum in zip(_rows(self.catalog.captions, task), checksums, strict=True)
        ]  # fmt: skip
        return rows, file

    def _batches(self, tasks: Iterable[Task]) -> Iterator[Batch]:
        """Batches of every shard, as its images come: each is read once, in the order of the source."""
        expected: dict[str, tuple[Page, int]] = {}
        size = self.config.encoders.batch_size

        def paths() -> Iterator[str]:
            for _, same in groupby(tasks, key=lambda task: task.inputs["start"]):
                shards = [self._open_shard(task) for task in same]
                page = Page(shards, left=len(shards[0].samples))
                for place, sample in enumerate(shards[0].samples):
                    expected[sample["path"]] = (page, place)
                    yield sample["path"]

        def prepare(item: tuple[str, bytes | UnusableImage]) -> tuple[str, Prepared | UnusableImage]:
            path, content = item
            return path, expected[path][0].prepare(content, self.config.data.min_size)

        contents = open_source(self.config.data, source_root(self.config, self.run)).read(paths())
        for path, image in map_ahead(prepare, contents, os.cpu_count() or 1, ahead=2 * size):
            page, place = expected.pop(path)
            page.take(place, image)
            for shard in page.shards:
                if len(shard.waiting) == size or not page.left:
                    yield shard.batch(self.config.seed, last=not page.left)

    def _encode(self, batch: Batch) -> tuple[Batch, Returning]:
        if not batch.places:
            return batch, Returning(torch.from_numpy(batch.shard.latents[:0]))
        encode = self._encode_pixels[batch.shard.resolution]
        return batch, Returning(encode(batch.pixels, batch.noise))

    def _open_shard(self, task: Task) -> Shard:
        resolution = task.inputs["resolution"]
        shape = latents_field(self.config, len(self.catalog.samples), resolution).shape
        samples = _rows(self.catalog.samples, task)
        return Shard(task, resolution, samples, np.full((len(samples), *shape), np.nan, np.float16))

    def _encode_text_batch(self, captions: Sequence[str]) -> Tensor:
        return self._text().encode(captions).half()

    def _encode_pixel_batch(self, pixels: Tensor, noise: Tensor) -> Tensor:
        return self._images().encode_pixels(pixels, noise).half()

    def _finish_images(self, shard: Shard) -> tuple[list[dict[str, Any]], WrittenFile]:
        attributes = {
            "encoder": self.config.encoders.vae,
            "weights": self.config.encoders.weights,
            "scaling_factor": self._images().scaling_factor,
            "units": "VAE latents times scaling_factor, one draw of the posterior",
        }
        stored = latents_field(self.config, len(self.catalog.samples), shard.resolution)
        file, checksums = self._write(stored, shard.task.inputs["shard"], shard.latents, attributes)
        return [{**row, "checksum": checksum} for row, checksum in zip(shard.rows, checksums, strict=True)], file

    def _write(
        self, stored: Field, shard: int, rows: np.ndarray, attributes: dict[str, Any]
    ) -> tuple[WrittenFile, list[int]]:
        if not self.cache.sizes([stored.metadata_name]):
            attributes = {**attributes, "fingerprint": cache_fingerprint(self.config)}
            self.cache.put(stored.metadata_name, [describe(stored, attributes)])
        parts, checksums = encode_shard(stored, rows)
        return self.cache.put(stored.shard_name(shard), parts), checksums

    def _images(self) -> ImageEncoder:
        if self._image_encoder is None:
            chosen = self.config.encoders
            encoder = load_image_encoder(chosen.vae, chosen.weights, chosen.dtype, chosen.tiling)
            self._image_encoder = encoder.to(resolve_device(self.device))
            self._check_latents(self._image_encoder)
        return self._image_encoder

    def _text(self) -> TextEncoder:
        if self._text_encoder is None:
            chosen = self.config.encoders
            encoder = load_text_encoder(chosen.text, chosen.weights, chosen.dtype)
            self._text_encoder = encoder.to(resolve_device(self.device))
            width, wanted = self._text_encoder.width, self.config.model.caption_channels
            if width != wanted:
                raise UserError(
                    f"{self.config.encoders.text} gives {width} channels, model.caption_channels is {wanted}"
                )
        return self._text_encoder

    def _check_latents(self, encoder: ImageEncoder) -> None:
        model, downsampling = self.config.model, self.config.encoders.downsampling
        if (encoder.channels, encoder.downsampling) != (model.in_channels, downsampling):
            raise UserError(
                f"{self.config.encoders.vae} makes latents of {encoder.channels} channels, {encoder.downsampling} "
                "times smaller than the image: set model.in_channels and encoders.downsampling to that"
            )


def _rows(table: Any, task: Task) -> list[dict[str, Any]]:
    start, stop = task.inputs["start"], task.inputs["stop"]
    return table.slice(start, stop - start).to_pylist()
