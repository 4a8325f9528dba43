# pyarrow ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
"""Stage one: images and captions to a cache of latents and text embeddings."""

import logging
import time
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError, WorkError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.data.cache.encoding import open_encoding
from lcm_distill.data.cache.rows import CATALOG_TASK
from lcm_distill.data.sources.registry import source_type
from lcm_distill.pipeline.atomic import commit_bytes
from lcm_distill.pipeline.executors.interface import Executor
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.shapes.dataset import annotations_path, write_images
from lcm_distill.stages.stage import Check, Stage

CATALOG_SECONDS = 3600
"""How long other ranks wait for the first one to number the data set."""

log = logging.getLogger(__name__)


def precompute(config: Config, run: RunFolder, executor: Executor | None = None) -> Iterator[Progress]:
    """Generate the images of a generated data set, number its samples, and encode those that are not encoded yet.

    Raises:
        UserError: there is no data set, none of its images can be used, or the cache was made with other settings or
            other weights of an encoder.
        DataError: the catalog is damaged.
        WorkError: tasks failed repeatedly, or the first rank did not number the data set.
    """
    executor = executor or Serial()
    cache = Cache.open(config, run)
    if executor.leads:
        yield from generate_images(cache)
        catalog = cache.open_catalog()
    else:
        catalog = wait_for_catalog(cache)
    cache.require_same_weights()
    manifest, tasks = cache.manifest, cache.tasks(catalog)
    del catalog  # which may be large
    rows_done, rows_resumed, quarantined = 0, 0, manifest.entries([CATALOG_TASK])[CATALOG_TASK].quarantined
    total = sum(task.size for task in tasks)
    yield Progress("encode", 0, total, "rows", {"quarantined": quarantined})
    for _, resumed, entry in executor.run(tasks, manifest, partial(open_encoding, config, run)):
        rows_done += entry.rows
        rows_resumed += entry.rows if resumed else 0
        quarantined += entry.quarantined
        yield Progress("encode", rows_done, total, "rows", {"quarantined": quarantined}, rows_resumed)
    log.info("%d rows are encoded, %d quarantined", rows_done, quarantined)
    if executor.leads and not len(cache.usable("train")):
        raise UserError(f"no image of {cache.source_root} could be used: see `lcm status --run {run.root}`")


def wait_for_catalog(cache: Cache) -> Catalog:
    """The catalog, once another rank has committed it.

    Raises:
        WorkError: that takes too long.
    """
    began = time.monotonic()
    while (catalog := cache.find_catalog()) is None:
        if time.monotonic() - began > CATALOG_SECONDS:
            raise WorkError(
                f"{cache.storage.locate()} has no catalog yet: the first rank makes it, and has ended or is too slow"
            )
        time.sleep(1)
    return catalog


def generate_images(cache: Cache) -> Iterator[Progress]:
    """Write the images of a generated data set. The annotation file is written last and marks them as complete."""
    data, root, lines = cache.config.data, cache.source_root, list[str]()
    if not source_type(data).generated or annotations_path(root).exists():
        return
    for done, line in write_images(root, cache.config.seed, data.images, max(data.resolutions)):
        lines.append(line)
        if done % 200 == 0 or done == data.images:
            yield Progress(f"generate {data.source}", done, data.images, "images")
    commit_bytes(annotations_path(root), ("\n".join(lines) + "\n").encode())


def plan_precompute(config: Config, run: RunFolder) -> dict[str, Any]:
    """Figures of the encoding of a data set."""
    cache = Cache.open(config, run)
    figures: dict[str, Any] = {
        "source": config.data.source,
        "root": str(config.data.root or run.images),
        "cache": cache.storage.locate(),
        "vae": config.encoders.vae,
        "text_encoder": config.encoders.text,
        "weights": config.encoders.weights,
        "latent_bytes_per_sample": cache.layout.latents(1).row_bytes,
    }
    if cache.has_catalog:
        tasks = cache.tasks()
        figures |= {"tasks": len(tasks), "done": len(cache.manifest.done(tasks))}
    return figures


def checks(config: Config, run: RunFolder, before: Collection[str]) -> list[Check]:
    """What encoding needs: a data set."""
    return [lambda: Cache.open(config, run).source_root]


STAGE = Stage("precompute", precompute, plan_precompute, checks, "share", begins=True)
