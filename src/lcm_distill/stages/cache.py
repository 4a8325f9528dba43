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

from lcm_distill.config import Config, digest
from lcm_distill.data import catalog as catalogs
from lcm_distill.data.cache import Field
from lcm_distill.data.catalog import Catalog
from lcm_distill.data.loader import ShuffledBatches
from lcm_distill.data.reader import FieldReader
from lcm_distill.data.records import Annotation, BadAnnotation, UnusablePicture
from lcm_distill.data.sources import open_source
from lcm_distill.data.transforms import decode_square
from lcm_distill.errors import DataError, UserError
from lcm_distill.pipeline.atomic import TEMPORARY, WrittenFile, commit_file, file_sha256
from lcm_distill.pipeline.manifest import OK, QUARANTINED, Manifest
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Task

SAMPLE_COLUMNS = pa.schema(
    [("kind", pa.string()), ("sample_id", pa.string()), ("row", pa.int64()), ("shard", pa.int64()),
     ("source", pa.string()), ("caption_row", pa.int64()), ("split", pa.string()), ("width", pa.int64()),
     ("height", pa.int64()), ("status", pa.string()), ("error", pa.string()), ("checksum", pa.int64())]
)  # fmt: skip
"""`kind` is `image`, `caption`, `annotation` (a line left out) or `catalog` (one of its files); `checksum` is the
CRC-32C of the row's bytes."""

CATALOG_TASK = "catalog"


def source_root(config: Config, run: RunFolder) -> Path:
    """The folder of the data set.

    Raises:
        UserError: a source that must be downloaded has no `data.root`.
    """
    if config.data.root is not None:
        return config.data.root
    if config.data.source != "shapes":
        raise UserError(f"data.root is missing: set it to the folder of your {config.data.source} download")
    return run.pictures


def cache_fingerprint(config: Config) -> str:
    """Identity of everything in the cache but the inputs themselves."""
    return digest([config.fingerprint("data", "encoders", "cache"), config.model.latent_size])


def open_manifest(run: RunFolder) -> Manifest:
    """The cache's manifest."""
    return Manifest(run.cache / "manifest", SAMPLE_COLUMNS, run.cache)


def build_catalog(config: Config, run: RunFolder) -> Catalog:
    """The catalog, numbered on the first call and read back ever after.

    Raises:
        DataError: the catalog or its manifest part is damaged.
        UserError: the cache was made with other settings.
    """
    manifest, task = open_manifest(run), Task(CATALOG_TASK, cache_fingerprint(config))
    if manifest.is_done(task):
        return catalogs.read_catalog(run.cache)
    if recorded := manifest.entries([CATALOG_TASK]):
        if recorded[CATALOG_TASK].fingerprint == task.fingerprint:
            raise DataError(
                f"{run.cache / 'catalog'} is damaged: `lcm verify --repair --run {run.root}` makes it again"
            )
        raise UserError(
            f"{run.cache} was made with other data, encoder or cache settings: choose another --run, or delete it"
        )
    catalog, bad = number_annotations(config, run)
    commit_catalog(config, run, catalog, bad)
    return catalog


def number_annotations(config: Config, run: RunFolder) -> tuple[Catalog, list[BadAnnotation]]:
    """The catalog of what the source holds now, and the lines that cannot be used."""
    bad: list[BadAnnotation] = []
    records = open_source(config.data, source_root(config, run)).annotations()
    run.cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=TEMPORARY, dir=run.cache) as scratch:
        catalog, again = catalogs.build_catalog(_set_aside(records, bad), config.data.valid_fraction, Path(scratch))
    return catalog, bad + [BadAnnotation(name, "duplicate picture") for name in again]


def commit_catalog(config: Config, run: RunFolder, catalog: Catalog, bad: Sequence[BadAnnotation]) -> None:
    """Write the catalog's files; the manifest part names them and their hashes, and the lines left out."""
    manifest, rows = open_manifest(run), []
    for path, table in (
        (catalogs.samples_path(run.cache), catalog.samples),
        (catalogs.captions_path(run.cache), catalog.captions),
    ):
        commit_file(path, lambda temporary, table=table: pq.write_table(table, temporary))
        file = WrittenFile(path, path.stat().st_size, file_sha256(path))
        rows.append({"kind": "catalog", "status": OK, **manifest.file_columns(file)})
    rows += [{"kind": "annotation", "source": line.source, "status": QUARANTINED, "error": line.error} for line in bad]
    manifest.commit(Task(CATALOG_TASK, cache_fingerprint(config)), rows, None)


def _set_aside(records: Iterable[Annotation | BadAnnotation], bad: list[BadAnnotation]) -> Iterator[Annotation]:
    """The annotations; what is none goes into `bad`."""
    for record in records:
        if isinstance(record, Annotation):
            yield record
        else:
            bad.append(record)


def plan(config: Config, run: RunFolder, catalog: Catalog) -> list[Task]:
    """One task a shard: of captions first, then of pictures."""
    tasks, fingerprint = [], cache_fingerprint(config)
    for kind, table, identity in (
        ("captions", catalog.captions, "caption"),
        ("images", catalog.samples, "path"),
    ):
        for shard, start in enumerate(range(0, len(table), config.cache.shard_rows)):
            stop = min(start + config.cache.shard_rows, len(table))
            inputs = table[identity].slice(start, stop - start).to_pylist()
            identity_hash = digest([fingerprint, kind, start, inputs])
            tasks.append(
                Task(f"{kind}-{shard:05d}", identity_hash, {"kind": kind, "shard": shard, "start": start, "stop": stop})
            )
    return tasks


def latents_field(config: Config, samples: int) -> Field:
    """The array of latents, one row a sample."""
    model = config.model
    shape = (model.in_channels, model.latent_size, model.latent_size)
    return Field(f"latents_{config.data.resolution}", samples, shape, config.cache.shard_rows)


def text_field(config: Config, captions: int, context_length: int) -> Field:
    """The array of token embeddings, one row a distinct caption."""
    return Field("text", captions, (context_length, config.model.caption_channels), config.cache.shard_rows)


def quarantined_by_task(manifest: Manifest, names: Iterable[str]) -> dict[str, int]:
    """How many quarantined rows the given tasks have, in one pass; tasks without any are absent."""
    table = manifest.read([Task(name, "") for name in names])
    counts = table.filter(pc.field("status") == QUARANTINED).group_by("task").aggregate([([], "count_all")])
    return dict(zip(counts["task"].to_pylist(), counts["count_all"].to_pylist(), strict=True))


def usable_samples(run: RunFolder, split: str) -> list[dict[str, Any]]:
    """Row, caption row and source of every sample that the manifest calls ok, in order of row."""
    wanted = (pc.field("kind") == "image") & (pc.field("status") == OK) & (pc.field("split") == split)
    table = open_manifest(run).read().filter(wanted).sort_by("row")
    return table.select(["row", "caption_row", "source"]).to_pylist()


def real_pictures(config: Config, run: RunFolder, paths: Sequence[str]) -> np.ndarray:
    """Pictures of the data set, prepared as for encoding: uint8 (len(paths), H, W, 3), in the source's own order.

    Raises:
        DataError: a picture that was encoded cannot be read any more.
    """
    data, pictures = config.data, []
    for path, content in open_source(data, source_root(config, run)).read(paths):
        try:
            if isinstance(content, UnusablePicture):
                raise content
            pictures.append(decode_square(content, data.resolution, data.min_size)[0])
        except UnusablePicture as error:
            raise DataError(f"{path}: {error}, though it was encoded before: put it back") from error
    return np.stack(pictures)


def open_batches(config: Config, run: RunFolder, batch_size: int) -> ShuffledBatches:
    """Training batches from the finished cache.

    Raises:
        UserError: there is no cache, or it is not complete.
    """
    remedy = f"run `lcm precompute` into {run.root} first"
    run.require(catalogs.samples_path(run.cache), remedy)
    catalog = build_catalog(config, run)
    manifest = open_manifest(run)
    tasks = plan(config, run, catalog)
    lacking = len(tasks) - len(manifest.done(tasks))
    if lacking:
        raise UserError(f"{run.cache} lacks {lacking} shards: {remedy}")
    samples = usable_samples(run, "train")
    latents = FieldReader(run.cache, latents_field(config, len(catalog.samples)))
    captions = FieldReader(run.cache, stored_text_field(config, run, catalog))
    rows = np.array([sample["row"] for sample in samples])
    caption_rows = np.array([sample["caption_row"] for sample in samples])
    return ShuffledBatches(latents, captions, rows, caption_rows, batch_size, config.seed)


def stored_text_field(config: Config, run: RunFolder, catalog: Catalog) -> Field:
    """The text field as the cache has it; its context length is read off its metadata."""
    stored = json.loads((run.cache / "text" / "zarr.json").read_text())
    return text_field(config, len(catalog.captions), stored["shape"][1])
