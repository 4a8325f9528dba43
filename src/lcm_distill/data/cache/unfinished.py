"""A cache that is not complete yet: which commits an extension has still to replace, and what completes it."""

from lcm_distill.core.words import counted
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.data.cache.layout import CacheLayout
from lcm_distill.pipeline.manifest_parts import Entry
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Task


def is_of_fewer_rows(layout: CacheLayout, catalog: Catalog, task: Task, entry: Entry) -> bool:
    """Whether a commit is that of the task's first rows, from before the data set grew."""
    return entry.rows < task.size and entry.fingerprint == layout.begun_as(task, catalog, entry.rows)


def completion(owner: RunFolder, shards: int) -> str | None:
    """How to complete the cache that a run makes, which lacks so many shards or rows of them; None if it lacks none."""
    if not shards:
        return None
    return f"lacks {counted(shards, 'shard')} or rows of them: `lcm precompute --run {owner.root}` completes it"
