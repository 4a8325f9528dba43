"""From catalog rows to shards of the cache: read, decode ahead, encode, write."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lcm_distill.config import Config
from lcm_distill.data.cache import Field, describe, encode_shard
from lcm_distill.data.catalog import Catalog
from lcm_distill.data.records import UnusablePicture
from lcm_distill.data.sources import open_source
from lcm_distill.data.transforms import decode_square
from lcm_distill.device import resolve_device
from lcm_distill.diffusion.randomness import normal, stable_hash
from lcm_distill.encoders.images import ImageEncoder, load_image_encoder
from lcm_distill.encoders.text import TextEncoder, load_text_encoder
from lcm_distill.errors import UserError
from lcm_distill.pipeline.atomic import WrittenFile, commit_bytes, commit_parts
from lcm_distill.pipeline.executor import Outcome
from lcm_distill.pipeline.lookahead import map_ahead
from lcm_distill.pipeline.manifest import OK, QUARANTINED
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Task
from lcm_distill.stages.cache import cache_fingerprint, latents_field, source_root, text_field

Decoded = tuple[np.ndarray, tuple[int, int]]
"""A picture's pixels, and the width and height it had on disk."""


@dataclass
class Shard:
    """Pictures on their way into one shard of latents.

    Pictures of a shard come in the order in which the source reads them, whatever other shards are under way, and
    are encoded in batches of that order: an interrupted run makes the same batches, and so the same bytes, again.

    Attributes:
        latents: float16 (samples, C, h, w), NaN until encoded and where a picture is unusable.
        rows: what the manifest will say of each sample.
        waiting: places and pixels of pictures that are decoded and not yet encoded.
        left: pictures that have not come yet.
    """

    task: Task
    samples: list[dict[str, Any]]
    latents: np.ndarray
    rows: list[dict[str, Any]] = field(init=False)
    waiting: list[tuple[int, np.ndarray]] = field(init=False, default_factory=list)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.samples)
        self.rows = [
            {"kind": "image", "sample_id": sample["sample_id"], "row": sample["row"],
             "shard": self.task.inputs["shard"], "source": sample["path"],
             "caption_row": sample["caption_row"], "split": sample["split"]}
            for sample in self.samples
        ]  # fmt: skip

    def take(self, place: int, picture: Decoded | UnusablePicture) -> None:
        """Note what became of a sample's picture."""
        self.left -= 1
        if isinstance(picture, UnusablePicture):
            self.quarantine(place, str(picture))
            return
        pixels, (width, height) = picture
        self.rows[place] |= {"width": width, "height": height, "status": OK}
        self.waiting.append((place, pixels))

    def quarantine(self, place: int, reason: str) -> None:
        """Set a sample aside."""
        self.latents[place] = np.nan
        self.rows[place] |= {"status": QUARANTINED, "error": reason}


class Encoding:
    """Executes the tasks of `stages.cache.plan`. Encoders load when the first task needs them."""

    def __init__(self, config: Config, run: RunFolder, catalog: Catalog) -> None:
        self.config, self.run, self.catalog = config, run, catalog
        self._image_encoder: ImageEncoder | None = None
        self._text_encoder: TextEncoder | None = None

    def execute(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Encode captions, then pictures; tell of each shard when it is written."""
        for task in tasks:
            if task.inputs["kind"] == "captions":
                yield task, *self._encode_captions(task.inputs)
        yield from self._encode_pictures([task for task in tasks if task.inputs["kind"] == "images"])

    def _encode_captions(self, inputs: Mapping[str, Any]) -> tuple[list[dict[str, Any]], WrittenFile]:
        encoder = self._text()
        captions = self.catalog.captions.slice(inputs["start"], inputs["stop"] - inputs["start"]).to_pylist()
        texts = [row["caption"] for row in captions]
        size = self.config.encoders.batch_size
        encoded = torch.cat([encoder.encode(texts[i : i + size]).cpu() for i in range(0, len(texts), size)])
        array = text_field(self.config, len(self.catalog.captions), encoder.context_length)
        attributes = {
            "encoder": self.config.encoders.text,
            "weights": self.config.encoders.weights,
            "units": "last hidden state after the final norm",
        }
        file, checksums = self._write(array, inputs["shard"], encoded.half().numpy(), attributes)
        rows = [
            {"kind": "caption", "row": row["row"], "shard": inputs["shard"], "caption_row": row["row"],
             "split": row["split"], "status": OK, "checksum": checksum}
            for row, checksum in zip(captions, checksums, strict=True)
        ]  # fmt: skip
        return rows, file

    def _encode_pictures(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Read every picture once; the source may mix the order, so several shards can be under way."""
        expected: dict[str, tuple[Shard, int]] = {}

        def paths() -> Iterator[str]:
            for task in tasks:
                shard = self._open_shard(task)
                for place, sample in enumerate(shard.samples):
                    expected[sample["path"]] = (shard, place)
                    yield sample["path"]

        contents = open_source(self.config.data, source_root(self.config, self.run)).read(paths())
        size = self.config.encoders.batch_size
        for path, picture in map_ahead(self._decode, contents, os.cpu_count() or 1, ahead=2 * size):
            shard, place = expected.pop(path)
            shard.take(place, picture)
            if len(shard.waiting) == size or (shard.waiting and not shard.left):
                self._encode_waiting(shard)
            if not shard.left:
                yield shard.task, *self._finish(shard)

    def _open_shard(self, task: Task) -> Shard:
        start, stop = task.inputs["start"], task.inputs["stop"]
        shape = latents_field(self.config, len(self.catalog.samples)).shape
        samples = self.catalog.samples.slice(start, stop - start).to_pylist()
        return Shard(task, samples, np.full((len(samples), *shape), np.nan, np.float16))

    def _decode(self, item: tuple[str, bytes | UnusablePicture]) -> tuple[str, Decoded | UnusablePicture]:
        path, content = item
        if isinstance(content, UnusablePicture):
            return path, content
        try:
            return path, decode_square(content, self.config.data.resolution, self.config.data.min_size)
        except UnusablePicture as reason:
            return path, reason

    def _encode_waiting(self, shard: Shard) -> None:
        places = [place for place, _ in shard.waiting]
        images = torch.from_numpy(np.stack([pixels for _, pixels in shard.waiting])).permute(0, 3, 1, 2) / 127.5 - 1
        # Addressed by the sample's name: the draw does not depend on batch, worker or order.
        noise = torch.cat([
            normal(self.config.seed, "posterior", 0, [stable_hash(shard.samples[place]["sample_id"])],
                   shard.latents.shape[1:])
            for place in places
        ])  # fmt: skip
        shard.latents[places] = self._images().encode(images, noise).cpu().half().numpy()
        shard.waiting.clear()
        for place in places:
            if not np.isfinite(shard.latents[place]).all():
                shard.quarantine(place, "latents are not finite")

    def _finish(self, shard: Shard) -> tuple[list[dict[str, Any]], WrittenFile]:
        encoder = self._images()
        attributes = {
            "encoder": self.config.encoders.vae,
            "weights": self.config.encoders.weights,
            "scaling_factor": encoder.scaling_factor,
            "units": "VAE latents times scaling_factor, one draw of the posterior",
        }
        array = latents_field(self.config, len(self.catalog.samples))
        file, checksums = self._write(array, shard.task.inputs["shard"], shard.latents, attributes)
        return [{**row, "checksum": checksum} for row, checksum in zip(shard.rows, checksums, strict=True)], file

    def _write(
        self, array: Field, shard: int, rows: np.ndarray, attributes: dict[str, Any]
    ) -> tuple[WrittenFile, list[int]]:
        metadata = self.run.cache / array.name / "zarr.json"
        if not metadata.exists():
            commit_bytes(metadata, describe(array, {**attributes, "fingerprint": cache_fingerprint(self.config)}))
        parts, checksums = encode_shard(array, rows)
        return commit_parts(array.shard_path(self.run.cache, shard), parts), checksums

    def _images(self) -> ImageEncoder:
        if self._image_encoder is None:
            chosen = self.config.encoders
            encoder = load_image_encoder(chosen.vae, chosen.weights, chosen.dtype, chosen.tiling)
            self._image_encoder = encoder.to(resolve_device(self.config.device))
            self._check_latents(self._image_encoder)
        return self._image_encoder

    def _text(self) -> TextEncoder:
        if self._text_encoder is None:
            chosen = self.config.encoders
            encoder = load_text_encoder(chosen.text, chosen.weights, chosen.dtype)
            self._text_encoder = encoder.to(resolve_device(self.config.device))
            width, wanted = self._text_encoder.width, self.config.model.caption_channels
            if width != wanted:
                raise UserError(
                    f"{self.config.encoders.text} gives {width} channels, model.caption_channels is {wanted}"
                )
        return self._text_encoder

    def _check_latents(self, encoder: ImageEncoder) -> None:
        data, model = self.config.data, self.config.model
        side = data.resolution // encoder.downsampling
        if (encoder.channels, side) != (model.in_channels, model.latent_size):
            raise UserError(
                f"{self.config.encoders.vae} makes {encoder.channels} x {side} x {side} latents at "
                f"{data.resolution} px: set model.in_channels and model.latent_size to that"
            )
