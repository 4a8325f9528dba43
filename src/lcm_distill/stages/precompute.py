"""Stage one: pictures and captions to a cache of latents and text embeddings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lcm_distill.config import Config
from lcm_distill.data.cache import Field, describe, encode_shard
from lcm_distill.data.catalog import Catalog
from lcm_distill.data.shapes_set import annotations_path, write_pictures
from lcm_distill.data.transforms import UnusablePicture, load_square
from lcm_distill.device import resolve_device
from lcm_distill.diffusion.randomness import normal, stable_hash
from lcm_distill.encoders.images import ImageEncoder, load_image_encoder
from lcm_distill.encoders.text import TextEncoder, load_text_encoder
from lcm_distill.errors import UserError
from lcm_distill.pipeline.atomic import WrittenFile, commit_bytes, commit_parts
from lcm_distill.pipeline.executor import run_serially
from lcm_distill.pipeline.manifest import OK, QUARANTINED
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress, Task
from lcm_distill.stages.cache import (
    CATALOG_TASK,
    build_catalog,
    cache_fingerprint,
    count_quarantined,
    latents_field,
    open_manifest,
    plan,
    source_root,
    text_field,
    usable_samples,
)


def precompute(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Draw pictures if the source is `shapes`, number what there is, and encode what is not encoded yet."""
    yield from draw_pictures(config, run)
    catalog = build_catalog(config, run)
    manifest = open_manifest(run)
    tasks = plan(config, run, catalog)
    rows_done, resumed, quarantined = 0, 0, count_quarantined(manifest, [CATALOG_TASK])
    total = len(catalog.samples) + len(catalog.captions)
    executor = Encoding(config, run, catalog)
    yield Progress("encode", 0, total, "rows", {"quarantined": quarantined})
    for task, already_done in run_serially(tasks, manifest, executor.execute):
        size = task.inputs["stop"] - task.inputs["start"]
        rows_done += size
        resumed += size if already_done else 0
        quarantined += count_quarantined(manifest, [task.name])
        yield Progress("encode", rows_done, total, "rows", {"quarantined": quarantined}, resumed)
    if not usable_samples(run, "train"):
        raise UserError(f"no picture of {source_root(config, run)} could be used: see `lcm status --run {run.root}`")


def draw_pictures(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Write the pictures of `shapes`; the annotation file comes last and says that they are complete."""
    root = source_root(config, run)
    if config.data.source != "shapes" or annotations_path(root).exists():
        return
    data, lines = config.data, []
    for done, line in write_pictures(root, config.seed, data.pictures, data.resolution):
        lines.append(line)
        if done % 200 == 0 or done == data.pictures:
            yield Progress("draw shapes", done, data.pictures, "pictures")
    commit_bytes(annotations_path(root), ("\n".join(lines) + "\n").encode())


@dataclass
class Encoding:
    """Executes the tasks of `plan`. Encoders load when the first task needs them."""

    config: Config
    run: RunFolder
    catalog: Catalog

    def __post_init__(self) -> None:
        self._image_encoder: ImageEncoder | None = None
        self._text_encoder: TextEncoder | None = None

    def execute(self, task: Task) -> tuple[Sequence[Mapping[str, Any]], WrittenFile]:
        """Encode one shard and write it."""
        encode = self._encode_captions if task.inputs["kind"] == "captions" else self._encode_images
        return encode(task.inputs["shard"], task.inputs["start"], task.inputs["stop"])

    def _encode_captions(self, shard: int, start: int, stop: int) -> tuple[list[dict[str, Any]], WrittenFile]:
        encoder = self._text()
        captions = self.catalog.captions.slice(start, stop - start).to_pylist()
        texts = [row["caption"] for row in captions]
        size = self.config.encoders.batch_size
        encoded = torch.cat([encoder.encode(texts[i : i + size]).cpu() for i in range(0, len(texts), size)])
        field = text_field(self.config, len(self.catalog.captions), encoder.context_length)
        attributes = {"encoder": self.config.encoders.text, "units": "last hidden state after the final norm"}
        file, checksums = self._write(field, shard, encoded.half().numpy(), attributes)
        rows = [
            {"kind": "caption", "row": row["row"], "shard": shard, "caption_row": row["row"],
             "split": row["split"], "status": OK, "checksum": checksum}
            for row, checksum in zip(captions, checksums, strict=True)
        ]  # fmt: skip
        return rows, file

    def _encode_images(self, shard: int, start: int, stop: int) -> tuple[list[dict[str, Any]], WrittenFile]:
        samples = self.catalog.samples.slice(start, stop - start).to_pylist()
        field = latents_field(self.config, len(self.catalog.samples))
        latents = np.full((len(samples), *field.shape), np.nan, np.float16)
        size = self.config.encoders.batch_size
        rows = []
        for first in range(0, len(samples), size):
            batch = samples[first : first + size]
            encoded, outcomes = self._encode_batch(batch, field.shape)
            latents[first : first + size] = encoded
            rows += [
                {"kind": "image", "sample_id": sample["sample_id"], "row": sample["row"], "shard": shard,
                 "source": sample["path"], "caption_row": sample["caption_row"], "split": sample["split"], **outcome}
                for sample, outcome in zip(batch, outcomes, strict=True)
            ]  # fmt: skip
        encoder = self._images()
        attributes = {
            "encoder": self.config.encoders.vae,
            "scaling_factor": encoder.scaling_factor,
            "units": "VAE latents times scaling_factor, one draw of the posterior",
        }
        file, checksums = self._write(field, shard, latents, attributes)
        for row, checksum in zip(rows, checksums, strict=True):
            row["checksum"] = checksum
        return rows, file

    def _encode_batch(
        self, samples: list[dict[str, Any]], shape: tuple[int, ...]
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Latents of a few samples, NaN where a picture is unusable, and what became of each."""
        latents = np.full((len(samples), *shape), np.nan, np.float16)
        pictures, places, outcomes = [], [], []
        for place, sample in enumerate(samples):
            try:
                picture, (width, height) = self._load(sample["path"])
            except UnusablePicture as error:
                outcomes.append({"status": QUARANTINED, "error": str(error)})
                continue
            pictures.append(picture)
            places.append(place)
            outcomes.append({"width": width, "height": height, "status": OK})
        if pictures:
            images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
            # Addressed by the sample's name: the draw does not depend on batch, worker or order.
            noise = torch.cat([
                normal(self.config.seed, "posterior", 0, [stable_hash(samples[place]["sample_id"])], shape)
                for place in places
            ])  # fmt: skip
            latents[places] = self._images().encode(images, noise).cpu().half().numpy()
        for place in places:
            if not np.isfinite(latents[place]).all():
                latents[place] = np.nan
                outcomes[place] = {**outcomes[place], "status": QUARANTINED, "error": "latents are not finite"}
        return latents, outcomes

    def _load(self, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        data = self.config.data
        return load_square(source_root(self.config, self.run) / path, data.resolution, data.min_size)

    def _write(
        self, field: Field, shard: int, rows: np.ndarray, attributes: dict[str, Any]
    ) -> tuple[WrittenFile, list[int]]:
        metadata = self.run.cache / field.name / "zarr.json"
        if not metadata.exists():
            commit_bytes(metadata, describe(field, {**attributes, "fingerprint": cache_fingerprint(self.config)}))
        parts, checksums = encode_shard(field, rows)
        return commit_parts(field.shard_path(self.run.cache, shard), parts), checksums

    def _images(self) -> ImageEncoder:
        if self._image_encoder is None:
            self._image_encoder = load_image_encoder(self.config.encoders.vae).to(resolve_device(self.config.device))
            self._check_latents(self._image_encoder)
        return self._image_encoder

    def _text(self) -> TextEncoder:
        if self._text_encoder is None:
            self._text_encoder = load_text_encoder(self.config.encoders.text).to(resolve_device(self.config.device))
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
