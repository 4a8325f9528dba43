"""Encoding speed, estimated from when manifest parts were committed."""

from collections.abc import Collection, Sequence
from itertools import pairwise
from statistics import median

from lcm_distill.data.cache.layout import TEXT
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK
from lcm_distill.pipeline.manifest import FOLDER, Manifest, part_name, task_of_part
from lcm_distill.pipeline.task import Task

PARTS = 20
PAUSE = 10
"""A time between parts that exceeds the median by this factor is an interruption."""
LOADING = 60
"""Seconds that the first part of a kind may take, in which an encoder is loaded."""


def encode_rate(manifest: Manifest, tasks: Sequence[Task], done: Collection[str]) -> dict[str, float | None]:
    """`rows_per_second` over the newest parts and `seconds_left` at that rate, for tasks of `CacheLayout.tasks`.

    Captions and images are encoded at different speeds: the rate is that of the newest part's kind, and nothing is
    estimated while tasks of the other kind are pending. Both are None where the times of parts are not known: merged
    parts have none, and a single part gives no duration.

    Args:
        done: names of the committed tasks.
    """
    pending = [task for task in tasks if task.name not in done]
    newest = _newest_of_one_kind(manifest, [task for task in tasks if task.name in done])
    rate = _rate(newest)
    if rate is None:
        return {"rows_per_second": None, "seconds_left": None if pending else 0}
    same_kind = all(task.inputs["kind"] == newest[-1][1].inputs["kind"] for task in pending)
    left = sum(task.size for task in pending) / rate
    return {"rows_per_second": round(rate, 1), "seconds_left": round(left) if same_kind else None}


def encoding_times(manifest: Manifest) -> dict[str, tuple[int, float]]:
    """Rows and seconds by kind, `captions` and `images`, from when parts were committed.

    A part's time is that since the one before, the first one's since the catalog's. Parts after an interruption count
    for nothing, nor do merged ones.

    Raises:
        DataError: a part is damaged.
    """
    written = {task_of_part(name): part.modified for name, part in manifest.storage.listing(FOLDER).items()}
    if CATALOG_TASK not in written:
        return {}
    entries = manifest.entries(map(task_of_part, manifest.loose_parts()))
    before, spent = written[CATALOG_TASK], dict[str, list[tuple[float, int]]]()
    for entry in sorted(entries.values(), key=lambda entry: written[entry.task]):
        if entry.task != CATALOG_TASK:
            kind = "captions" if entry.task.startswith(f"{TEXT}-") else "images"
            spent.setdefault(kind, []).append((written[entry.task] - before, entry.rows))
            before = written[entry.task]
    return {kind: (sum(rows for _, rows in work), sum(seconds for seconds, _ in work))
            for kind, measured in spent.items() if (work := _without_pauses(measured, LOADING))}  # fmt: skip


def _newest_of_one_kind(manifest: Manifest, tasks: Sequence[Task]) -> list[tuple[float, Task]]:
    """Commit times of the newest parts of one kind, oldest first."""
    parts = manifest.storage.listing(FOLDER)
    written = [(parts[part_name(task.name)].modified, task) for task in tasks if part_name(task.name) in parts]
    times = sorted(written, key=lambda item: item[0])
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
