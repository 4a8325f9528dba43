"""Stage one: images and captions to a cache of latents and text embeddings."""

import time
from collections.abc import Iterator
from functools import partial

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError, WorkError
from lcm_distill.data.cache.cache import (
    CATALOG_TASK,
    build_catalog,
    cache_storage,
    find_catalog,
    open_manifest,
    plan,
    source_root,
    usable_samples,
)
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.data.cache.encoding import open_encoding
from lcm_distill.pipeline.atomic import commit_bytes
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.executors.work import Executor
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import Storage
from lcm_distill.pipeline.task import Progress
from lcm_distill.shapes.dataset import annotations_path, write_images

CATALOG_SECONDS = 3600
"""How long ranks wait for the first one to number the data set."""


def precompute(config: Config, run: RunFolder, executor: Executor | None = None) -> Iterator[Progress]:
    """Draw images if the source is `shapes`, number what there is, and encode what is not encoded yet."""
    executor = executor or Serial()
    cache = cache_storage(config, run)
    if executor.leads:
        yield from draw_images(config, run)
        catalog = build_catalog(config, run, cache)
    else:
        catalog = wait_for_catalog(config, cache)
    manifest = open_manifest(cache)
    tasks = plan(config, catalog)
    rows_done, rows_resumed, quarantined = 0, 0, manifest.entries([CATALOG_TASK])[CATALOG_TASK].quarantined
    total = sum(task.inputs["stop"] - task.inputs["start"] for task in tasks)
    yield Progress("encode", 0, total, "rows", {"quarantined": quarantined})
    for _, resumed, entry in executor.run(tasks, manifest, partial(open_encoding, config, run)):
        rows_done += entry.rows
        rows_resumed += entry.rows if resumed else 0
        quarantined += entry.quarantined
        yield Progress("encode", rows_done, total, "rows", {"quarantined": quarantined}, rows_resumed)
    if executor.leads and not len(usable_samples(config, cache, "train")):
        raise UserError(f"no image of {source_root(config, run)} could be used: see `lcm status --run {run.root}`")


def wait_for_catalog(config: Config, cache: Storage) -> Catalog:
    """The catalog, once another process has made it.

    Raises:
        WorkError: that takes too long.
    """
    began = time.monotonic()
    while (catalog := find_catalog(config, cache)) is None:
        if time.monotonic() - began > CATALOG_SECONDS:
            raise WorkError(
                f"{cache.locate()} has no catalog yet: the first rank makes it, and has ended or is too slow"
            )
        time.sleep(1)
    return catalog


def draw_images(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Write the images of `shapes`; the annotation file comes last and says that they are complete."""
    root = source_root(config, run)
    if config.data.source != "shapes" or annotations_path(root).exists():
        return
    data, lines = config.data, []
    for done, line in write_images(root, config.seed, data.images, max(data.resolutions)):
        lines.append(line)
        if done % 200 == 0 or done == data.images:
            yield Progress("draw shapes", done, data.images, "images")
    commit_bytes(annotations_path(root), ("\n".join(lines) + "\n").encode())
