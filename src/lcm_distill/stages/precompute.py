"""Stage one: pictures and captions to a cache of latents and text embeddings."""

from collections.abc import Iterator

from lcm_distill.config import Config
from lcm_distill.data.shapes_set import annotations_path, write_pictures
from lcm_distill.errors import UserError
from lcm_distill.pipeline.atomic import commit_bytes
from lcm_distill.pipeline.executor import run_serially
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.stages.cache import (
    CATALOG_TASK,
    build_catalog,
    open_manifest,
    plan,
    quarantined_by_task,
    source_root,
    usable_samples,
)
from lcm_distill.stages.encoding import Encoding


def precompute(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Draw pictures if the source is `shapes`, number what there is, and encode what is not encoded yet."""
    yield from draw_pictures(config, run)
    catalog = build_catalog(config, run)
    manifest = open_manifest(run)
    tasks = plan(config, run, catalog)
    # Counted once for what an earlier run left: asking task by task would read every merged file again and again.
    known = quarantined_by_task(manifest, [CATALOG_TASK, *manifest.done(tasks)])
    rows_done, resumed, quarantined = 0, 0, known.get(CATALOG_TASK, 0)
    total = len(catalog.samples) + len(catalog.captions)
    executor = Encoding(config, run, catalog)
    yield Progress("encode", 0, total, "rows", {"quarantined": quarantined})
    for task, already_done in run_serially(tasks, manifest, executor.execute):
        size = task.inputs["stop"] - task.inputs["start"]
        rows_done += size
        resumed += size if already_done else 0
        counts = known if already_done else quarantined_by_task(manifest, [task.name])
        quarantined += counts.get(task.name, 0)
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
