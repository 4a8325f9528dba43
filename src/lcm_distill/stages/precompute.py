# pyarrow ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
"""Stage one: images and captions to a cache of latents and text embeddings."""

import logging
import time
from collections.abc import Collection, Generator, Iterator
from functools import partial
from typing import Any

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError, WorkError
from lcm_distill.core.words import counted
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.data.cache.catalog_building import count_unnamed, open_catalog, restore_catalog
from lcm_distill.data.cache.dataset_changes import Changes, remember_state, source_state, take_up_changes
from lcm_distill.data.cache.encoding import open_encoding
from lcm_distill.data.cache.kept_rows import forget_rows, put_rows_aside
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK
from lcm_distill.data.cache.repair import withdraw_mended
from lcm_distill.data.cache.shared_cache import require_own, trainings_on
from lcm_distill.data.sources.registry import source_type
from lcm_distill.data.survey import survey
from lcm_distill.data.teacher_fit import fitting_teacher
from lcm_distill.pipeline.atomic_writes import commit_bytes
from lcm_distill.pipeline.executors.interface import Executor
from lcm_distill.pipeline.executors.ranks import launched_ranks
from lcm_distill.pipeline.executors.runner import split
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.shapes.dataset import annotations_path, write_images
from lcm_distill.stages.stage import Check, Stage

CATALOG_SECONDS = 3600
"""How long other ranks wait for the first one to number the data set."""

log = logging.getLogger(__name__)


def precompute(
    config: Config, run: RunFolder, executor: Executor | None = None, retry_quarantined: bool = False
) -> Iterator[Progress]:
    """Generate the images of a generated data set, number its samples, and encode those that are not encoded yet.

    Args:
        retry_quarantined: encode the shards again that have quarantined images which can be used by now.

    Raises:
        UserError: there is no data set, none of its images can be used, or the cache was made with other settings or
            an encoder that differs.
        DataError: the catalog is damaged.
        WorkError: tasks failed repeatedly, or the first rank did not number the data set.
    """
    executor, cache = executor or Serial(), Cache.open(config, run)
    if cache.is_shared:
        return (yield from use_shared(cache))
    if executor.leads:
        changes, catalog = yield from prepare(cache, retry_quarantined)
    else:
        changes, catalog = Changes(), wait_for_catalog(cache)
    cache.require_same_encoders()
    manifest, tasks = cache.manifest, cache.tasks(catalog)
    put_rows_aside(manifest, cache.layout, catalog, split(tasks, manifest)[1])
    del catalog  # which may be large
    rows_done, rows_resumed, quarantined = 0, 0, manifest.entries([CATALOG_TASK])[CATALOG_TASK].quarantined
    total = sum(task.size for task in tasks)
    yield Progress("encode", 0, total, "rows", {"quarantined": quarantined, **changes.figures()})
    for _, resumed, entry in executor.run(tasks, manifest, partial(open_encoding, config, run)):
        rows_done += entry.rows
        rows_resumed += entry.rows if resumed else 0
        quarantined += entry.quarantined
        counts = {"quarantined": quarantined, **changes.figures()}
        yield Progress("encode", rows_done, total, "rows", counts, rows_resumed)
    log.info("%d rows are encoded, %d quarantined", rows_done, quarantined)
    if executor.leads:
        finish(cache)


def prepare(cache: Cache, retry_quarantined: bool) -> Generator[Progress, None, tuple[Changes, Catalog]]:
    """Generate the images of a generated data set, number the data set, and withdraw what is to be done again.

    Returns:
        What has changed in the data set, and its catalog.

    Raises:
        UserError: as `number` and `require_unread`.
        DataError: the catalog is damaged.
    """
    yield from generate_images(cache)
    changes = number(cache)
    catalog = open_catalog(cache)
    if retry_quarantined:
        require_unread(cache)
        log.info("%d tasks are done again", len(withdraw_mended(cache, catalog)))
    return changes, catalog


def finish(cache: Cache) -> None:
    """Forget what was put aside, once all tasks are done, and check that there is something to train on.

    Also counts images in archives that no annotation names, unless a training needs the cache as it is.

    Raises:
        UserError: no image could be used.
    """
    forget_rows(cache.storage)
    if not trainings_on(cache.run, cache.manifest):
        count_unnamed(cache)
    if not len(cache.usable("train")):
        status = f"see `lcm status --run {cache.run.root}`"
        if held_out := len(cache.usable("valid")):
            raise UserError(
                f"no image of {cache.source_root} is left to train on, as data.valid_fraction holds "
                f"{counted(held_out, 'image')} out: add images, or lower it for another --run; {status}"
            )
        raise UserError(f"no image of {cache.source_root} could be used: {status}")


def use_shared(cache: Cache) -> Generator[Progress]:
    """Check that the cache of another run is complete, of which nothing is encoded here.

    Raises:
        UserError: it is not complete, or not what it has to be; DataError: it is damaged.
    """
    catalog = cache.require_complete()
    rows = sum(task.size for task in cache.tasks(catalog))
    yield Progress("encode", rows, rows, "rows", resumed=rows)


def number(cache: Cache) -> Changes:
    """Number the data set, or what is new in it: the rows that a cache has stay as they are.

    It stays as it is where a training has begun on it, of this run or another, which would continue on other samples,
    and where several ranks have been started, which may have read it already.

    Raises:
        UserError: there is no data set, or the cache was made with other settings.
        DataError: the catalog is damaged.
    """
    restore_catalog(cache)
    if not cache.manifest.is_done(cache.catalog_task):
        generated = source_type(cache.config.data).generated
        state = None if generated else source_state(cache.source_root)
        open_catalog(cache)
        if state is not None:
            remember_state(cache, state)
        return Changes()
    if trainings_on(cache.run, cache.manifest) or launched_ranks() is not None:
        return Changes()
    return take_up_changes(cache)


def require_unread(cache: Cache) -> None:
    """Check that the samples which a cache offers may change, as quarantined ones are tried again.

    Raises:
        UserError: a training has begun on it, which would continue on other samples, or several ranks have been
            started, which may have read it already.
    """
    if begun := " and ".join(map(str, trainings_on(cache.run, cache.manifest))):
        raise UserError(
            f"--retry-quarantined would change the cache that {begun} began with: choose another --run, or delete "
            f"{begun} to begin again with what it is then"
        )
    if launched_ranks() is not None:
        raise UserError("--retry-quarantined changes what other ranks may have read already: run it in one process")


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


def plan_precompute(config: Config, run: RunFolder, retry_quarantined: bool = False) -> dict[str, Any]:
    """Figures of the encoding of a data set, and of what the data set holds.

    Args:
        retry_quarantined: as for `precompute`.
    """
    del retry_quarantined
    cache = Cache.open(config, run)
    figures: dict[str, Any] = {
        "source": config.data.source,
        "root": str(config.data.root or cache.owner.images),
        "cache": cache.storage.locate(),
        "vae": config.encoders.vae,
        "text_encoder": config.encoders.text,
        "weights": config.encoders.weights,
        "fitting_teacher": fitting_teacher(config, run),
        "latent_bytes_per_sample": cache.layout.latents(1).row_bytes,
    }
    if catalog := cache.find_catalog():
        tasks = cache.tasks(catalog)
        figures |= {"tasks": len(tasks), "done": len(cache.manifest.done(tasks))}
    if not source_type(config.data).generated:
        figures["data"] = _survey(cache)
    elif not cache.is_shared and not annotations_path(cache.source_root).exists():
        figures["images_to_generate"] = config.data.images
    return figures


def _survey(cache: Cache) -> dict[str, Any]:
    """Figures of the data set; the reason where it is not there, or cannot be read and need not be.

    Raises:
        UserError: encoding would end with the same.
    """
    try:
        source = cache.source
    except UserError as error:
        return {"unreadable": str(error)}
    try:
        return survey(source, cache.config.data.min_size)
    except UserError as error:
        if cache.is_shared or trainings_on(cache.run, cache.manifest):
            return {"unreadable": str(error)}
        raise


def checks(config: Config, run: RunFolder, before: Collection[str], retry_quarantined: bool = False) -> list[Check]:
    """What encoding needs: a data set, or the cache of the run that made it."""
    cache = Cache.open(config, run)
    return [
        partial(_readable, config, run),
        *([lambda: require_own(config.cache, run, "precompute --retry-quarantined")] * retry_quarantined),
        *([lambda: require_unread(cache)] * retry_quarantined),
    ]


def _readable(config: Config, run: RunFolder) -> None:
    """Check that there is a data set, which a cache that is numbered already can do without, or the cache that is used.

    Raises:
        UserError: there is none.
    """
    cache = Cache.open(config, run)
    if cache.is_shared:
        cache.require_begun()
    elif source_type(config.data).generated and (root := cache.source_root).exists() and not root.is_dir():
        raise UserError(f"data.root = {str(root)!r} is a file: name a folder, into which images are generated")
    else:
        _ = cache.source_root if cache.find_catalog() else cache.source


STAGE = Stage("precompute", precompute, plan_precompute, checks, "share", begins=True, reads=_readable)
