# pyarrow ships no types, and those of torch.from_numpy are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
"""From catalog rows to shards of the cache: read, decode, encode and write, all at the same time."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import torch

from lcm_distill.arrays.format import Field, encode_shard
from lcm_distill.arrays.metadata import read_metadata, write_metadata
from lcm_distill.config import Config
from lcm_distill.data.cache.archive_members import record_members
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.damaged_shards import DamagedShards
from lcm_distill.data.cache.encoder_provenance import BATCH_SIZE, encode, encoder_of, require_same
from lcm_distill.data.cache.image_shards import CroppedImage, ImageBatch, ImageShard, RowRange
from lcm_distill.data.cache.kept_rows import KeptRows
from lcm_distill.data.cache.layout import TEXT
from lcm_distill.data.cache.manifest_rows import SampleRow
from lcm_distill.data.sources.interface import ListsMembers
from lcm_distill.data.sources.record_validation import readable
from lcm_distill.encoders.configured import ConfiguredEncoders
from lcm_distill.encoders.host_copies import HostCopy
from lcm_distill.encoders.identity import Encoder, identity, provenance
from lcm_distill.formats.images import UnusableImage
from lcm_distill.pipeline.executors.interface import Execute, Outcome
from lcm_distill.pipeline.manifest import OK, QUARANTINED
from lcm_distill.pipeline.prefetch import prefetch_map
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Task

BATCHES_AHEAD = 2
ENCODERS: tuple[Encoder, ...] = ("vae", "text")
Places = list[tuple[RowRange, list[int]]]
"""Where an image goes: ranges of rows, and the indices of its samples in each."""
Arrived = tuple[str, bytes | UnusableImage, Places]
"""An image by its path, with the content of its file."""

log = logging.getLogger(__name__)


def open_encoding(config: Config, run: RunFolder, device: str | None) -> Execute:
    """Prepare encoding into the cache where it is made.

    Args:
        device: name of a device; None is the configured one.
    """
    return Encoding(Cache.open(config, run), device or config.device).execute


class Encoding:
    """Executes the tasks of `Cache.tasks`. Encoders are loaded for the first task that needs them.

    Args:
        device: name of a device.
        damaged: shards that are encoded again. One that cannot be restored is neither written nor yielded.
        sizes: of batches, by the name of a task, where it is another one than the configured.

    Raises:
        UserError: an encoder is not the one that encoded what the cache holds.
    """

    def __init__(
        self, cache: Cache, device: str, damaged: DamagedShards | None = None, sizes: Mapping[str, int] | None = None
    ) -> None:
        config = cache.config
        self.cache, self.config, self.catalog, self.damaged = cache, config, cache.read_catalog(), damaged
        self.transform, self.kept = cache.transform, KeptRows(cache.manifest)
        self.committed, self.batch_sizes = cache.require_same_encoders(), sizes or {}
        self.found: dict[Encoder, dict[str, Any]] = {which: identity(config.encoders, which) for which in ENCODERS}
        self.loaded: dict[Encoder, dict[str, Any]] = {}
        largest = max([config.encoders.batch_size, *self.batch_sizes.values()])
        encoders = config.encoders.model_copy(update={"batch_size": largest})
        self.encoders = ConfiguredEncoders(encoders, config.model, device, config.data.resolutions)

    def execute(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Encode captions and images; yields the task of each shard when it is written.

        While a shard is written the next batches are encoded, and while a batch is encoded the next ones are prepared
        and queued behind it on the GPU.
        """
        for kind, same in groupby(tasks, key=lambda task: task.inputs["kind"]):
            if kind == "caption":
                for task, embeddings in prefetch_map(self._embed, same, workers=1, ahead=1):
                    yield from self._finish_captions(task, embeddings.numpy())
            else:
                for batch, latents in prefetch_map(self._encode, self._batches(same), workers=1, ahead=BATCHES_AHEAD):
                    batch.shard.fill(batch.indices, latents.numpy())
                    if batch.last:
                        yield from self._finish_images(batch.shard)

    def _embed(self, task: Task) -> tuple[Task, HostCopy]:
        texts, size = [row["caption"] for row in _rows(self.catalog.captions, task)], self._batch_size(task)
        batches = (texts[start : start + size] for start in range(0, len(texts), size))
        return task, HostCopy(torch.cat([self.encoders.encode_texts(batch) for batch in batches]))

    def _batch_size(self, task: Task) -> int:
        return self.batch_sizes.get(task.name, self.config.encoders.batch_size)

    def _finish_captions(self, task: Task, embeddings: np.ndarray) -> Iterator[Outcome]:
        stored = self.cache.layout.text(len(self.catalog.captions), embeddings.shape[1])
        attributes = {"units": "last hidden state after the final norm"}
        rows: list[SampleRow] = [
            {"kind": "caption", "field": stored.name, "row": row["row"], "shard": task.inputs["shard"],
             "caption_row": row["row"], "split": row["split"], "status": OK}
            for row in _rows(self.catalog.captions, task)
        ]  # fmt: skip
        for place, row in enumerate(rows, task.inputs["start"]):
            if not np.isfinite(embeddings[place - task.inputs["start"]]).all():
                log.warning("quarantined caption %d: its embedding is not finite", place)
                row |= {"status": QUARANTINED, "error": "embedding is not finite"}
        yield from self._write(stored, task, embeddings, rows, attributes)

    def _batches(self, tasks: Iterable[Task]) -> Iterator[ImageBatch]:
        """Batches of every shard as its images come: each image is read once, in the order of the source."""
        expected: dict[str, Places] = {}
        ahead = 2 * self.config.encoders.batch_size

        def paths() -> Iterator[str]:
            for _, same in groupby(tasks, key=lambda task: task.inputs["start"]):
                shards = [self._open_shard(task) for task in same]
                row_range = RowRange(shards, left=len(shards[0].samples))
                for path, indices in _indices_by_path(shards[0].samples):
                    known = expected.setdefault(path, [])
                    known.append((row_range, indices))
                    if len(known) == 1:
                        yield path

        def arrived() -> Iterator[Arrived]:
            # In the thread that asks for the paths, so that none is added to what has arrived.
            for path, content in self._read(paths()):
                yield path, content, expected.pop(path)

        for path, images in prefetch_map(self._crop, arrived(), os.cpu_count() or 1, ahead):
            for row_range, indices, image in images:
                if isinstance(image, UnusableImage):
                    log.warning("quarantined %s: %s", path, readable(image))
                for index in indices:
                    row_range.add(index, image)
                    for shard in row_range.shards:
                        if len(shard.waiting) == self._batch_size(shard.task) or not row_range.left:
                            yield shard.batch(self.config.seed, last=not row_range.left)

    def _read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images from the source; what their archives hold besides is recorded before the first one of each."""
        source = self.cache.source
        if not isinstance(source, ListsMembers):
            return source.read(paths)
        return source.read_listing(paths, lambda found: record_members(self.cache.storage, self.catalog, found))

    def _crop(self, item: Arrived) -> tuple[str, list[tuple[RowRange, list[int], CroppedImage | UnusableImage]]]:
        path, content, places = item
        size, version = self.config.data.min_size, self.transform
        return path, [(rows, indices, rows.crop(content, size, version)) for rows, indices in places]

    def _encode(self, batch: ImageBatch) -> tuple[ImageBatch, HostCopy]:
        if not batch.indices:
            return batch, HostCopy(torch.from_numpy(batch.shard.latents[:0]))
        latents = self.encoders.encode_pixels(batch.shard.resolution, batch.pixels, batch.noise)
        return batch, HostCopy(latents)

    def _open_shard(self, task: Task) -> ImageShard:
        resolution = task.inputs["resolution"]
        shape = self.cache.layout.latents(len(self.catalog.samples), resolution).shape
        samples = _rows(self.catalog.samples, task)
        return ImageShard(task, resolution, samples, np.full((len(samples), *shape), np.nan, np.float16))

    def _finish_images(self, shard: ImageShard) -> Iterator[Outcome]:
        attributes = {
            "units": "VAE latents times scaling_factor, one draw of the posterior",
            "transform": self.transform,
        }
        stored = self.cache.layout.latents(len(self.catalog.samples), shard.resolution)
        yield from self._write(stored, shard.task, shard.latents, shard.rows, attributes)

    def _write(
        self, stored: Field, task: Task, values: np.ndarray, rows: list[SampleRow], attributes: dict[str, Any]
    ) -> Iterator[Outcome]:
        encoded, encoded_by = list(rows), self._encoded_by(task)
        if self.damaged is None:
            self.kept.restore(task, stored, values, rows)
        elif not self.damaged.restore(task, stored, values, rows):
            return
        for row, own in zip(rows, encoded, strict=True):
            if row is own:  # and not what was recorded when another encoding made it
                row["encoded_by"] = encoded_by
        self._describe(stored, attributes)
        parts, checksums = encode_shard(stored, values)
        for row, checksum in zip(rows, checksums, strict=True):
            row["checksum"] = checksum
        yield task, rows, self.cache.storage.put(stored.shard_name(task.inputs["shard"]), parts)

    def _encoded_by(self, task: Task) -> str:
        """What encodes a task, for the manifest."""
        which, resolution = encoder_of(task.inputs["field"]), task.inputs["resolution"]
        size = min(self._batch_size(task), self.encoders.batch_size(resolution))
        own = {"transform": self.transform} if which == "vae" else {}
        return encode({**self._identity(which), **own, BATCH_SIZE: size})

    def _identity(self, which: Encoder) -> dict[str, Any]:
        """What an encoder is, once it is loaded.

        Raises:
            UserError: its files have been replaced since this work began.
        """
        if which not in self.loaded:
            field = TEXT if which == "text" else self.cache.layout.latents(1).name
            require_same(self.found[which], self.config.encoders, field, self.cache.storage.locate(field))
            self.loaded[which] = identity(self.config.encoders, which)
        return self.loaded[which]

    def _made_by(self, field: str) -> dict[str, Any]:
        """Attributes of a field about its encoder; none where rows of it may have been encoded by another one."""
        known = self.committed.get(field)
        if not known and (known is not None or self.damaged is not None):
            return {}
        which = encoder_of(field)
        return {**provenance(self.config.encoders, which), **self._identity(which)}

    def _describe(self, stored: Field, attributes: dict[str, Any]) -> None:
        """Write the metadata of a field that has none, or has more rows by now as the data set has grown."""
        storage = self.cache.storage
        if not storage.sizes([stored.metadata_name]):
            made_by = self._made_by(stored.name)
            write_metadata(storage, stored, {**made_by, **attributes, "fingerprint": self.cache.layout.fingerprint})
            return
        described = read_metadata(storage, stored.metadata_name, self.cache.repair)
        if described["shape"][0] != stored.rows:
            write_metadata(storage, stored, described["attributes"])


def _rows(table: Any, task: Task) -> list[dict[str, Any]]:
    start, stop = task.inputs["start"], task.inputs["stop"]
    return table.slice(start, stop - start).to_pylist()


def _indices_by_path(samples: list[dict[str, Any]]) -> Iterator[tuple[str, list[int]]]:
    """The indices of the samples of each image, which follow each other."""
    for path, same in groupby(enumerate(samples), key=lambda sample: sample[1]["path"]):
        yield path, [index for index, _ in same]
