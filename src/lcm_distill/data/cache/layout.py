# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""Which arrays and tasks make up a cache: functions of the configuration and the catalog."""

from dataclasses import dataclass

import pyarrow as pa

from lcm_distill.arrays.format import Field
from lcm_distill.config import Config
from lcm_distill.core.hashing import digest
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.pipeline.task import Task

TEXT = "text"
"""Name of the array of token embeddings."""


@dataclass(frozen=True)
class CacheLayout:
    """The arrays of a configuration's cache, and the tasks that fill them."""

    config: Config

    @property
    def fingerprint(self) -> str:
        """Identity of everything that determines a cache except its inputs, 16 hex digits."""
        config, model = self.config, self.config.model
        return digest([config.fingerprint("data", "encoders", "cache"), model.in_channels, model.caption_channels])

    def latents(self, samples: int, resolution: int | None = None) -> Field:
        """The array of latents, one row per sample.

        Args:
            samples: number of rows.
            resolution: height and width of the images in pixels; None is the resolution that is trained.
        """
        resolution = resolution or self.config.resolution
        side = resolution // self.config.encoders.downsampling
        shape = (self.config.model.in_channels, side, side)
        return Field(f"latents_{resolution}", samples, shape, self.config.cache.shard_rows)

    def text(self, captions: int, tokens: int) -> Field:
        """The array of token embeddings, one row per distinct caption.

        Args:
            captions: number of rows.
            tokens: context length of the text encoder.
        """
        shape = (tokens, self.config.model.caption_channels)
        return Field(TEXT, captions, shape, self.config.cache.shard_rows)

    def tasks(self, catalog: Catalog) -> list[Task]:
        """One task per shard: captions first, then images; all resolutions of a range of rows follow each other."""
        captions = self._tasks("caption", catalog.captions, "caption", self.text(1, 1))
        images = [
            self._tasks("image", catalog.samples, "path", self.latents(1, resolution), resolution)
            for resolution in self.config.data.resolutions
        ]
        return [*captions, *(task for same_rows in zip(*images, strict=True) for task in same_rows)]

    def begun_as(self, task: Task, catalog: Catalog, rows: int) -> str:
        """The fingerprint that a task had when only its first `rows` rows were numbered."""
        table, identity = (
            (catalog.captions, "caption") if task.inputs["kind"] == "caption" else (catalog.samples, "path")
        )
        start = task.inputs["start"]
        return _fingerprint(self.fingerprint, task.inputs["field"], start, table[identity].slice(start, rows))

    def _tasks(
        self, kind: str, table: pa.Table, identity: str, field: Field, resolution: int | None = None
    ) -> list[Task]:
        """Tasks of a field, which has a row for each row of `table`; the column `identity` is what is encoded."""
        tasks, fingerprint, size = [], self.fingerprint, field.shard_rows
        for shard, start in enumerate(range(0, len(table), size)):
            stop = min(start + size, len(table))
            inputs = table[identity].slice(start, stop - start)
            tasks.append(
                Task(
                    f"{field.name}-{shard:05d}",
                    _fingerprint(fingerprint, field.name, start, inputs),
                    {"kind": kind, "field": field.name, "resolution": resolution, "shard": shard, "start": start,
                     "stop": stop, "file": field.shard_name(shard)},
                )
            )  # fmt: skip
        return tasks


def _fingerprint(cache: str, field: str, start: int, inputs: pa.ChunkedArray) -> str:
    return digest([cache, field, start, inputs.to_pylist()])
