"""Encoding speed, estimated from when manifest parts were committed."""

from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from statistics import median

from lcm_distill.data.cache.layout import TEXT
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK
from lcm_distill.pipeline.manifest import FOLDER, Manifest, task_of_part
from lcm_distill.pipeline.task import Task

PARTS = 20
PAUSE = 10
"""A time between parts that exceeds the median by this factor is an interruption."""
LOADING = 60
"""Seconds that the first part of a kind may take, in which an encoder is loaded."""


def encode_rate(manifest: Manifest, tasks: Sequence[Task], done: Collection[str]) -> dict[str, float | None]:
    """`rows_per_second` over the newest parts and `seconds_left` at that rate, for tasks of `CacheLayout.tasks`.

    Captions and images are encoded at different speeds: the rate is that of the newest part's kind, and nothing is
    estimated while tasks of the other kind are pending, nor where none are. Both are None where the times of parts are
    not known: merged parts have none, files that were copied without their dates neither, and a single part gives no
    duration.

    Args:
        done: names of the committed tasks.
    """
    pending = [task for task in tasks if task.name not in done]
    newest = _newest_of_one_kind(manifest, [task for task in tasks if task.name in done])
    rate = _rate(newest)
    if rate is None:
        return {"rows_per_second": None, "seconds_left": None}
    same_kind = all(task.inputs["kind"] == newest[-1][1].inputs["kind"] for task in pending)
    left = sum(task.size for task in pending) / rate
    return {"rows_per_second": round(rate, 1), "seconds_left": round(left) if pending and same_kind else None}


def encoding_times(manifest: Manifest) -> dict[str, tuple[int, float]]:
    """Rows and seconds by kind, `captions` and `images`, from when parts were committed.

    A part's time is that since the one before, the first one's since the catalog's. Parts after an interruption count
    for nothing, nor do merged ones, those before the catalog's, and all of a cache that was copied without dates.

    Raises:
        DataError: a part is damaged.
    """
    committed = _commit_times(manifest)
    entries = manifest.entries(committed)
    spent = dict[str, list[tuple[float, int]]]()
    for (_, before), (task, when) in pairwise(committed.items()):
        kind = "captions" if task.startswith(f"{TEXT}-") else "images"
        spent.setdefault(kind, []).append((when - before, entries[task].rows))
    return {kind: (sum(rows for _, rows in work), sum(seconds for seconds, _ in work))
            for kind, measured in spent.items() if (work := _without_pauses(measured, LOADING))}  # fmt: skip


def _commit_times(manifest: Manifest) -> dict[str, float]:
    """When the catalog and the tasks since then were committed, by the dates of their parts, rising.

    Returns:
        none where the dates cannot be those of the work: a task writes its shard after the catalog was committed and
        before its own part, and where folders are copied one after another without dates, none was.

    Raises:
        DataError: a part is damaged.
    """
    loose, listed = manifest.loose_parts(), manifest.storage.listing(FOLDER)
    parts = {task_of_part(name): listed[name].modified for name in loose if name in listed}
    begun = parts.pop(CATALOG_TASK, None)
    since = sorted((when, task) for task, when in parts.items() if begun is not None and when > begun)
    if begun is None or not since:
        return {}
    last, newest = since[-1]
    shards = [shard.name for entry in manifest.entries([newest]).values() for shard in entry.files]
    dates = [date for shard in shards if (date := _modified(manifest, shard)) is not None]
    if not all(begun < date <= last for date in dates):
        return {}
    return {CATALOG_TASK: begun} | {task: when for when, task in since}


def _modified(manifest: Manifest, file: str) -> float | None:
    found = manifest.storage.listing(str(PurePosixPath(file).parent)).get(file)
    return found.modified if found else None


def _newest_of_one_kind(manifest: Manifest, tasks: Sequence[Task]) -> list[tuple[float, Task]]:
    """Commit times of the newest parts of one kind, oldest first."""
    committed = _commit_times(manifest)
    times = sorted(((committed[task.name], task) for task in tasks if task.name in committed), key=lambda item: item[0])
    return [(when, task) for when, task in times if task.inputs["kind"] == times[-1][1].inputs["kind"]][-PARTS:]


def _rate(parts: Sequence[tuple[float, Task]]) -> float | None:
    spent = [(later - earlier, task.size) for (earlier, _), (later, task) in pairwise(parts)]
    if not spent:
        return None
    work = _without_pauses(spent)
    seconds = sum(seconds for seconds, _ in work)
    return sum(rows for _, rows in work) / seconds if seconds else None


def _without_pauses(spent: Sequence[tuple[float, int]], least: float = 0) -> list[tuple[float, int]]:
    """Those of seconds and rows that no interruption, which takes `least` seconds, was in."""
    longest = max(least, PAUSE * median(seconds for seconds, _ in spent))
    return [(seconds, rows) for seconds, rows in spent if seconds <= longest]
