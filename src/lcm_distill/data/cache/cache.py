# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""The cache of a run: its catalog, its manifest, the tasks that fill it, and the batches read from it."""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lcm_distill.arrays.format import Field
from lcm_distill.arrays.metadata import read_metadata
from lcm_distill.config import Config
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.words import counted
from lcm_distill.data.cache.catalog import SAMPLES_FILE, Catalog
from lcm_distill.data.cache.catalog_files import FILES, read_catalog_file
from lcm_distill.data.cache.encoder_provenance import committed, require_same_encoders
from lcm_distill.data.cache.layout import TEXT, CacheLayout
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK, SAMPLE_COLUMNS
from lcm_distill.data.cache.shared_cache import hold, location_of, require_held, require_same_settings
from lcm_distill.data.sources.interface import Source
from lcm_distill.data.sources.registry import open_source, source_root
from lcm_distill.pipeline.hashed_parquet import decode_table
from lcm_distill.pipeline.manifest import OK, Manifest
from lcm_distill.pipeline.object_store import RemoteStorage
from lcm_distill.pipeline.parquet_tables import rows_with, rows_without
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage, Storage
from lcm_distill.pipeline.task import Task

if TYPE_CHECKING:
    from lcm_distill.data.cache.loader import ShuffledBatches

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """The cache of a configuration and run folder.

    Nothing is read until it is needed, and nothing is kept: the catalog of a large data set takes hundreds of MB.

    Attributes:
        run: the run that uses it. owner: the run that makes it, which is another one where `cache.run` names it.
        storage: where it is.
    """

    config: Config
    run: RunFolder
    owner: RunFolder
    storage: Storage

    @classmethod
    def open(cls, config: Config, run: RunFolder) -> "Cache":
        """The cache where it is made: in a run folder, or in the object store that `cache.location` names."""
        location = config.cache.location
        return cls(config, run, run, RemoteStorage(location)) if location else cls.local(config, run)

    @classmethod
    def local(cls, config: Config, run: RunFolder) -> "Cache":
        """The cache in a run folder, from which training reads: in this one, or in that of `cache.run`."""
        owner = run if config.cache.run is None else RunFolder(config.cache.run)
        return cls(config, run, owner, LocalStorage(owner.cache))

    @property
    def is_shared(self) -> bool:
        """Whether it is another run's, which this run only reads."""
        return self.config.cache.run is not None

    @property
    def layout(self) -> CacheLayout:
        """Its arrays and tasks."""
        return CacheLayout(self.config)

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""
        return Manifest(self.storage, SAMPLE_COLUMNS, self.repair)

    @property
    def repair(self) -> str:
        """What to do about damaged files where it is made, for error messages."""
        return f"`lcm verify --repair --run {self.owner.root}` makes it again"

    @property
    def remedy(self) -> str:
        """How to complete the cache in its run folder, for error messages."""
        precompute = f"`lcm precompute --run {self.owner.root}`"
        if not location_of(self.config.cache, self.owner):
            return f"run {precompute} first"
        return f"run `lcm cache pull --run {self.owner.root}` first, after {precompute} where the store lacks it too"

    @property
    def shard_remedy(self) -> str:
        """What to do about a damaged shard in its run folder, for error messages."""
        pull = f"delete the file and run `lcm cache pull --run {self.owner.root}`"
        return pull if location_of(self.config.cache, self.owner) else self.repair

    @property
    def source_root(self) -> Path:
        """The folder of the data set.

        Raises:
            UserError: `data.root` is needed and unset.
        """
        return source_root(self.config.data, self.owner.images)

    @property
    def source(self) -> Source:
        """The data set.

        Raises:
            UserError: `data.root` is needed and unset.
        """
        return open_source(self.config.data, self.owner.images)

    @property
    def transform(self) -> int:
        """Version of `data.transforms` that its images are cropped with: of the first that was, so that all are alike.

        Raises:
            DataError: what describes the latents is damaged.
        """
        latents = self.layout.latents(1)
        if self.storage.sizes([latents.metadata_name]):
            return int(
                read_metadata(self.storage, latents.metadata_name, self.repair)["attributes"].get("transform", 1)
            )
        from lcm_distill.data.transforms import TRANSFORM

        return int(committed(self.manifest, [latents.name]).get(latents.name, {}).get("transform", TRANSFORM))

    def read_catalog(self) -> Catalog:
        """The catalog as it is stored, compared with the hashes that its commit recorded.

        Raises:
            DataError: it is damaged, or not committed.
        """
        entry = self.manifest.entries([CATALOG_TASK]).get(CATALOG_TASK)
        files = {file.name: file for file in entry.files} if entry else {}
        if not {*FILES} <= files.keys():
            raise DataError(f"{self.storage.locate('catalog')} has no commit in the manifest: {self.repair}")
        contents = (read_catalog_file(self.storage, files[name], self.repair) for name in FILES)
        return Catalog(*(decode_table(content) for content in contents))

    def find_catalog(self) -> Catalog | None:
        """The catalog, if it is committed.

        Raises:
            DataError: the catalog or its manifest part is damaged.
            UserError: the cache was made with other settings.
        """
        recorded = self.manifest.entries([CATALOG_TASK]).get(CATALOG_TASK)
        if recorded is None:
            return None
        if recorded.fingerprint != self.catalog_task.fingerprint:
            if self.is_shared:
                require_same_settings(self.config, self.owner)
            other = f"begin another --run with --cache {self.owner.root}"
            raise UserError(
                f"{self.storage.locate()} was made with other data, encoder or cache settings: "
                + (other if self.is_shared else "choose another --run, or delete it")
            )
        return self.read_catalog()

    def tasks(self, catalog: Catalog | None = None) -> list[Task]:
        """The tasks that fill the fields: `CacheLayout.tasks` of a catalog, by default of the stored one."""
        return self.layout.tasks(catalog or self.read_catalog())

    def usable(self, split: str) -> pa.Table:
        """Samples whose latents, at the resolution that is trained, and caption embeddings are in the cache.

        Args:
            split: `train` or `valid`.

        Returns:
            The columns `row`, `caption_row` and `source`, in order of row.
        """
        kept = ["row", "caption_row", "source"]
        rows = rows_with(self.manifest.read(columns=[*kept, "field", "status", "split"]), split=split)
        latents, text = rows_with(rows, field=self.layout.latents(1).name, status=OK), rows_with(rows, field=TEXT)
        unusable = rows_without(text, "status", pa.array([OK]))["row"].combine_chunks()
        return rows_without(latents, "caption_row", unusable).sort_by("row").select(kept)

    def batches(self, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> "ShuffledBatches":
        """Training batches from the complete cache in its run folder, shuffled by `seed`; a rank's part of them.

        Raises:
            UserError: there is no cache in the run folder, or it is not complete, or another than the run began with;
                DataError: it is damaged.
        """
        from lcm_distill.arrays.reader import FieldReader
        from lcm_distill.data.cache.loader import ShuffledBatches

        local = Cache.local(self.config, self.run)
        catalog = local.require_complete()
        samples = local.usable("train")
        fields = self.layout.latents(len(catalog.samples)), local.stored_text_field(catalog)
        checksums = local.recorded_checksums(fields)
        latents, captions = (
            FieldReader(self.owner.cache, field, checksums=checksums[field.name], remedy=self.shard_remedy)
            for field in fields
        )
        rows, caption_rows = samples["row"].to_numpy(), samples["caption_row"].to_numpy()
        return ShuffledBatches(latents, captions, rows, caption_rows, batch_size, seed, rank, ranks)

    def require_begun(self) -> None:
        """Check that there is a cache in its run folder and, if it is another run's, that it is what it has to be.

        Raises:
            UserError: it is missing, made with other settings, or not the one that this run began with.
        """
        if self.is_shared:
            require_same_settings(self.config, self.owner)
        self.owner.require(self.owner.cache / SAMPLES_FILE, self.remedy)
        if self.is_shared:
            require_held(self.run, self.owner, self.manifest)

    def require_complete(self) -> Catalog:
        """The catalog of the cache in its run folder, once all tasks are known to be done.

        Raises:
            UserError: as `require_begun`, or the cache is not complete; DataError: it is damaged.
        """
        self.require_begun()
        catalog = self.find_catalog()
        if catalog is None:
            raise UserError(f"{self.owner.cache / SAMPLES_FILE} is not committed: {self.remedy}")
        self._require_done(self.layout.tasks(catalog))
        return catalog

    def hold(self) -> None:
        """Record what another run's cache is, with which a training of this run begins."""
        if self.is_shared:
            hold(self.run, self.owner, Cache.local(self.config, self.run).manifest)

    def _require_done(self, tasks: Sequence[Task]) -> None:
        """Check that tasks are committed and their shards as long as they were written.

        Raises:
            UserError: some are not committed yet; some are damaged (DataError).
        """
        done, committed = self.manifest.done(tasks), self.manifest.entries([task.name for task in tasks])
        missing = [task for task in tasks if task.name not in done]
        for task in missing:
            if task.name in committed and committed[task.name].fingerprint == task.fingerprint:
                raise DataError(
                    f"{self.storage.locate(task.inputs['file'])} is missing or cut short: {self.shard_remedy}"
                )
        if missing:
            raise UserError(f"{self.storage.locate()} lacks {counted(len(missing), 'shard')}: {self.remedy}")

    def sample_paths(self, rows: Iterable[int]) -> list[str]:
        """Paths, in the data set, of the samples in these rows of the cache in the run folder."""
        return Cache.local(self.config, self.run).read_catalog().samples["path"].take(list(rows)).to_pylist()

    def recorded_checksums(self, fields: Iterable[Field]) -> dict[str, np.ndarray]:
        """CRC-32C of every row as the manifest has it, by field: int64 (rows,), -1 where it has none."""
        rows = self.manifest.read(columns=["field", "row", "checksum"])
        rows = rows.filter(rows["checksum"].is_valid())
        recorded: dict[str, np.ndarray] = {}
        for stored in fields:
            own = rows_with(rows, field=stored.name)
            recorded[stored.name] = np.full(stored.rows, -1, np.int64)
            recorded[stored.name][own["row"].to_numpy()] = own["checksum"].to_numpy()
        return recorded

    def stored_text_field(self, catalog: Catalog) -> Field:
        """The text field, with the context length that its stored metadata has.

        Raises:
            DataError: the metadata is missing or damaged.
        """
        metadata = read_metadata(self.storage, self.layout.text(1, 1).metadata_name, self.repair)
        return self.layout.text(len(catalog.captions), metadata["shape"][1])

    def require_same_encoders(self, damaged: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        """Check that the configured encoders are those that encoded what is here.

        Args:
            damaged: names of fields whose metadata is known to be damaged.
        """
        fields = [TEXT, *(self.layout.latents(1, size).name for size in self.config.data.resolutions)]
        return require_same_encoders(self.manifest, self.config.encoders, fields, damaged)

    def task_field(self, task: Task, catalog: Catalog) -> Field:
        """The field that a task fills, as it is stored."""
        if task.inputs["kind"] == "caption":
            return self.stored_text_field(catalog)
        return self.layout.latents(len(catalog.samples), task.inputs["resolution"])

    @property
    def catalog_task(self) -> Task:
        """The task that numbers the data set."""
        return Task(CATALOG_TASK, self.layout.fingerprint)
