"""The cache of a run: its catalog, its manifest, the tasks that fill it, and the batches read from it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lcm_distill.config import Config
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.hashing import digest
from lcm_distill.data.cache import catalog as catalogs
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.data.cache.format import Field
from lcm_distill.data.cache.loader import ShuffledBatches
from lcm_distill.data.cache.reader import FieldReader
from lcm_distill.data.sources.interface import Annotation, BadAnnotation, UnusableImage
from lcm_distill.data.sources.registry import open_source
from lcm_distill.data.transforms import decode, square
from lcm_distill.pipeline.atomic import temporary_prefix
from lcm_distill.pipeline.manifest import OK, QUARANTINED, Manifest, file_columns
from lcm_distill.pipeline.remote import RemoteStorage
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage, Storage
from lcm_distill.pipeline.task import Task

SAMPLE_COLUMNS = pa.schema(
    [("kind", pa.string()), ("field", pa.string()), ("sample_id", pa.string()), ("row", pa.int64()),
     ("shard", pa.int64()), ("source", pa.string()), ("caption_row", pa.int64()), ("split", pa.string()),
     ("width", pa.int64()), ("height", pa.int64()), ("status", pa.string()),
     ("error", pa.string()), ("checksum", pa.int64())]
)  # fmt: skip
"""`kind` is `image`, `caption`, `annotation` (a line left out) or `catalog` (one of its files); `field` is the
array that holds the row, `checksum` the CRC-32C of its bytes."""

CATALOG_TASK = "catalog"


def cache_storage(config: Config, run: RunFolder) -> Storage:
    """Where the cache is made: below the run folder, or in the object store that `cache.location` names."""
    location = config.cache.location
    return RemoteStorage(location) if location else LocalStorage(run.cache)


def source_root(config: Config, run: RunFolder) -> Path:
    """The folder of the data set.

    Raises:
        UserError: a source that must be downloaded has no `data.root`.
    """
    if config.data.root is not None:
        return config.data.root
    if config.data.source != "shapes":
        raise UserError(f"data.root is missing: set it to the folder of your {config.data.source} download")
    return run.images


def cache_fingerprint(config: Config) -> str:
    """Identity of everything in the cache but the inputs themselves."""
    model = config.model
    return digest([config.fingerprint("data", "encoders", "cache"), model.in_channels, model.caption_channels])


def open_manifest(cache: Storage) -> Manifest:
    """The manifest of a cache."""
    return Manifest(cache, SAMPLE_COLUMNS)


def read_catalog(cache: Storage) -> Catalog:
    """The catalog of a cache."""
    samples, captions = (pq.read_table(cache.source(name)) for name in (catalogs.SAMPLES_FILE, catalogs.CAPTIONS_FILE))
    return Catalog(samples, captions)


def build_catalog(config: Config, run: RunFolder, cache: Storage) -> Catalog:
    """The catalog, numbered on the first call and read back ever after.

    Raises:
        DataError: the catalog or its manifest part is damaged.
        UserError: the cache was made with other settings.
    """
    catalog = find_catalog(config, cache)
    if catalog is None:
        catalog, bad = number_annotations(config, run)
        commit_catalog(config, cache, catalog, bad)
    return catalog


def find_catalog(config: Config, cache: Storage) -> Catalog | None:
    """The catalog, if there is one.

    Raises:
        DataError: the catalog or its manifest part is damaged.
        UserError: the cache was made with other settings.
    """
    manifest, task = open_manifest(cache), Task(CATALOG_TASK, cache_fingerprint(config))
    if manifest.is_done(task):
        return read_catalog(cache)
    if recorded := manifest.entries([CATALOG_TASK]):
        if recorded[CATALOG_TASK].fingerprint == task.fingerprint:
            raise DataError(f"{cache.locate('catalog')} is damaged: `lcm verify --repair` makes it again")
        raise UserError(
            f"{cache.locate()} was made with other data, encoder or cache settings: choose another --run, or delete it"
        )
    return None


def number_annotations(config: Config, run: RunFolder) -> tuple[Catalog, list[BadAnnotation]]:
    """The catalog of what the source holds now, and the lines that cannot be used."""
    bad: list[BadAnnotation] = []
    records = open_source(config.data, source_root(config, run)).annotations()
    run.root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=temporary_prefix(), dir=run.root) as scratch:
        catalog, again = catalogs.build_catalog(_set_aside(records, bad), config.data.valid_fraction, Path(scratch))
    return catalog, bad + [BadAnnotation(name, "duplicate image") for name in again]


def commit_catalog(config: Config, cache: Storage, catalog: Catalog, bad: Sequence[BadAnnotation]) -> None:
    """Write the catalog's files; the manifest part names them and their hashes, and the lines left out."""
    rows: list[dict[str, Any]] = []
    for name, table in ((catalogs.SAMPLES_FILE, catalog.samples), (catalogs.CAPTIONS_FILE, catalog.captions)):
        content = pa.BufferOutputStream()
        pq.write_table(table, content)
        rows.append(
            {"kind": "catalog", "status": OK, **file_columns(cache.put(name, [memoryview(content.getvalue())]))}
        )
    rows += [{"kind": "annotation", "source": line.source, "status": QUARANTINED, "error": line.error} for line in bad]
    open_manifest(cache).commit(Task(CATALOG_TASK, cache_fingerprint(config)), rows, None)


def _set_aside(records: Iterable[Annotation | BadAnnotation], bad: list[BadAnnotation]) -> Iterator[Annotation]:
    """The annotations; what is none goes into `bad`."""
    for record in records:
        if isinstance(record, Annotation):
            yield record
        else:
            bad.append(record)


def plan(config: Config, catalog: Catalog) -> list[Task]:
    """One task a shard: of captions first, then of images, the resolutions of a range of rows side by side."""
    captions = _tasks(config, "caption", catalog.captions, "caption", text_field(config, 1, 1))
    images = [
        _tasks(config, "image", catalog.samples, "path", latents_field(config, 1, resolution), resolution)
        for resolution in config.data.resolutions
    ]
    return [*captions, *(task for same_rows in zip(*images, strict=True) for task in same_rows)]


def _tasks(
    config: Config, kind: str, table: pa.Table, identity: str, field: Field, resolution: int | None = None
) -> list[Task]:
    tasks, fingerprint = [], cache_fingerprint(config)
    for shard, start in enumerate(range(0, len(table), config.cache.shard_rows)):
        stop = min(start + config.cache.shard_rows, len(table))
        inputs = table[identity].slice(start, stop - start).to_pylist()
        task_fingerprint = digest([fingerprint, field.name, start, inputs])
        tasks.append(
            Task(
                f"{field.name}-{shard:05d}",
                task_fingerprint,
                {"kind": kind, "field": field.name, "resolution": resolution, "shard": shard, "start": start,
                 "stop": stop, "file": field.shard_name(shard)},
            )
        )  # fmt: skip
    return tasks


def latents_field(config: Config, samples: int, resolution: int | None = None) -> Field:
    """The array of latents of a resolution, one row a sample; of the one that trains if none is given."""
    resolution = resolution or config.resolution
    side = resolution // config.encoders.downsampling
    return Field(f"latents_{resolution}", samples, (config.model.in_channels, side, side), config.cache.shard_rows)


def text_field(config: Config, captions: int, context_length: int) -> Field:
    """The array of token embeddings, one row a distinct caption."""
    return Field("text", captions, (context_length, config.model.caption_channels), config.cache.shard_rows)


def usable_samples(config: Config, cache: Storage, split: str) -> pa.Table:
    """`row`, `caption_row` and `source` of every sample whose latents the manifest calls ok, in order of row."""
    kept, asked = ["row", "caption_row", "source"], ["field", "status", "split"]
    latents = latents_field(config, 1).name
    wanted = (pc.field("field") == latents) & (pc.field("status") == OK) & (pc.field("split") == split)
    return open_manifest(cache).read(columns=kept + asked).filter(wanted).sort_by("row").select(kept)


def real_images(config: Config, run: RunFolder, paths: Sequence[str]) -> Iterator[np.ndarray]:
    """Images of the data set, prepared as for encoding: each uint8 (H, W, 3), in the source's own order.

    Raises:
        DataError: an image that was encoded cannot be read any more.
    """
    for path, content in open_source(config.data, source_root(config, run)).read(paths):
        try:
            yield square(decode(content, config.data.min_size), config.resolution)
        except UnusableImage as error:
            raise DataError(f"{path}: {error}, though it was encoded before: put it back") from error


def how_to_complete(config: Config, run: RunFolder) -> str:
    """What makes the cache in the run folder, from which training reads, complete."""
    return f"run `lcm {'cache pull' if config.cache.location else 'precompute'}` into {run.root} first"


def open_batches(
    config: Config, run: RunFolder, batch_size: int, seed: int, rank: int = 0, ranks: int = 1
) -> ShuffledBatches:
    """Training batches from the finished cache, in the order of a seed; a rank's part of them if there are several.

    Raises:
        UserError: there is no cache, or it is not complete.
    """
    cache, remedy = LocalStorage(run.cache), how_to_complete(config, run)
    run.require(run.cache / catalogs.SAMPLES_FILE, remedy)
    catalog = build_catalog(config, run, cache)
    tasks = plan(config, catalog)
    lacking = len(tasks) - len(open_manifest(cache).done(tasks))
    if lacking:
        raise UserError(f"{run.cache} lacks {lacking} shards: {remedy}")
    samples = usable_samples(config, cache, "train")
    latents = FieldReader(run.cache, latents_field(config, len(catalog.samples)))
    captions = FieldReader(run.cache, stored_text_field(config, cache, catalog))
    rows, caption_rows = samples["row"].to_numpy(), samples["caption_row"].to_numpy()
    return ShuffledBatches(latents, captions, rows, caption_rows, batch_size, seed, rank, ranks)


def sample_sources(run: RunFolder, rows: Iterable[int]) -> list[str]:
    """Where in the source the samples of some rows come from, as the catalog has it."""
    return read_catalog(LocalStorage(run.cache)).samples["path"].take(list(rows)).to_pylist()


def stored_text_field(config: Config, cache: Storage, catalog: Catalog) -> Field:
    """The text field as the cache has it; its context length is read off its metadata."""
    stored = json.loads(cache.read(text_field(config, 1, 1).metadata_name))
    return text_field(config, len(catalog.captions), stored["shape"][1])


def task_field(config: Config, cache: Storage, task: Task, catalog: Catalog) -> Field:
    """The array that a task fills, as the cache has it."""
    if task.inputs["kind"] == "caption":
        return stored_text_field(config, cache, catalog)
    return latents_field(config, len(catalog.samples), task.inputs["resolution"])
