# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""The progress of a run, from what it has committed."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lcm_distill.config import Config
from lcm_distill.core.errors import DataError, UserError, one_line
from lcm_distill.data.cache.archive_members import members_are_recorded
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.dataset_changes import find_changes
from lcm_distill.data.cache.encoding_rate import encode_rate
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK, LEFT_OUT
from lcm_distill.data.cache.shared_cache import ELSEWHERE, trainings_on
from lcm_distill.data.cache.unfinished import completion
from lcm_distill.data.sources.interface import UNNAMED, ListsMembers
from lcm_distill.data.sources.record_validation import without_details
from lcm_distill.data.sources.registry import source_type
from lcm_distill.data.teacher_fit import fitting_teacher
from lcm_distill.evaluation.prompts import find_prompts, repeated
from lcm_distill.evaluation.table_schemas import read_metrics
from lcm_distill.pipeline.executors.heartbeats import WorkerStatus, read_workers
from lcm_distill.pipeline.manifest import QUARANTINED, Manifest
from lcm_distill.pipeline.manifest_parts import Entry
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Task
from lcm_distill.training.checkpointing.steps import saved_steps
from lcm_distill.training.events import last_loss

EXAMPLES = 5
"""How many records are named of each kind."""


def status(config: Config, run: RunFolder) -> dict[str, Any]:
    """Work done and to do by stage, of those that have begun, and quarantined samples by reason."""
    figures: dict[str, Any] = {"run": str(run.root), "precompute": _cache_status(config, run)}
    if config.pretrain and run.pretrain.exists():
        figures["pretrain"] = _training_status(run.pretrain, config.pretrain.steps)
    if run.distill.exists():
        figures["distill"] = _training_status(run.distill, config.distill.steps)
    if run.evaluate.exists():
        figures["evaluate"] = _evaluation_status(config, run)
    return figures | {"student": run.student.is_file()}


def _evaluation_status(config: Config, run: RunFolder) -> dict[str, Any]:
    """`metrics`: whether there are figures.

    `repeated_captions`: how many images are of a held-out caption again; None where the captions are not here.

    Raises:
        DataError: the captions, the manifest that lists them, or the table of figures are damaged.
    """
    try:
        again = repeated(find_prompts(config, run))
    except DataError:
        raise
    except (UserError, FileNotFoundError):
        again = None
    sets = len(list(run.evaluate.glob("*/manifest")))
    measured = run.metrics.is_file() and read_metrics(run.metrics) != []
    return {"image_sets": sets, "metrics": measured, "repeated_captions": again}


def _cache_status(config: Config, run: RunFolder) -> dict[str, Any]:
    """`failed` names tasks that are not done, and why the worker that last had each in hand did not finish it.

    `damaged` counts tasks that were committed and whose file is gone or has another size by now. `unfinished` says what
    completes the cache, where nothing is doing so.
    """
    cache = Cache.open(config, run)
    manifest = cache.manifest
    if CATALOG_TASK not in manifest.task_names():
        return {"cache": cache.storage.locate(),
                "tasks": None, "done": 0, "running": 0, "failed": {}, "damaged": 0, "unfinished": None,
                "quarantined": {}, "left_out": {}, "data": _owner_gone(cache), "try_again": None,
                "fitting_teacher": None, "rows_per_second": None, "seconds_left": None}  # fmt: skip
    tasks = cache.tasks()
    done = manifest.done(tasks)
    running, failed = _under_way(read_workers(cache.storage), done)
    entries = manifest.entries()
    rejected = _rejected(manifest, entries)
    return {
        "cache": cache.storage.locate(),
        "tasks": len(tasks),
        "done": len(done),
        "running": len(running),
        "failed": failed,
        "damaged": _damaged(manifest, [entries[task.name] for task in tasks if task.name in entries.keys() - done]),
        "unfinished": None if running else completion(cache.owner, len(tasks) - len(done)),
        "quarantined": rejected[QUARANTINED],
        "left_out": rejected[LEFT_OUT],
        "data": _data_changes(cache) | _not_counted(cache, complete=len(done) == len(tasks)),
        "try_again": _try_again(manifest, entries, run),
        "fitting_teacher": fitting_teacher(config, run),
        **encode_rate(manifest, tasks, done),
    }


def _owner_gone(cache: Cache) -> dict[str, str]:
    """That the run whose cache is read is not there, if so."""
    if not cache.is_shared or cache.owner.exists:
        return {}
    return {"missing": f"{cache.owner.config} is missing: {ELSEWHERE}"}


def _damaged(manifest: Manifest, undone: Sequence[Entry]) -> int:
    """How many of the commits lack what was committed; an extension has still to replace the others."""
    return len(undone) - len(manifest.done([Task(entry.task, entry.fingerprint) for entry in undone]))


def _rejected(manifest: Manifest, entries: Mapping[str, Entry]) -> dict[str, dict[str, int]]:
    """Numbers of quarantined records, and of those left out on purpose, by reason, the most frequent first."""
    tasks = [
        Task(entry.task, entry.fingerprint)
        for entry in entries.values()
        if entry.quarantined or entry.task == CATALOG_TASK
    ]
    rows = manifest.read(tasks, ["status", "error"]).to_pylist()
    reasons = {
        status: [without_details(row["error"]) for row in rows if row["status"] == status]
        for status in (QUARANTINED, LEFT_OUT)
    }
    return {status: dict(Counter(sorted(found)).most_common()) for status, found in reasons.items()}


def _try_again(manifest: Manifest, entries: Mapping[str, Entry], run: RunFolder) -> str | None:
    """What tries quarantined images again, once their files are there or mended, and captions; None without any."""
    quarantined = any(entry.quarantined for name, entry in entries.items() if name != CATALOG_TASK)
    trainings = trainings_on(run, manifest)
    verb = "is" if len(trainings) == 1 else "are"
    once = f", once {' and '.join(map(str, trainings))} {verb} deleted" if trainings else ""
    return f"lcm precompute --run {run.root} --retry-quarantined{once}" if quarantined else None


def _data_changes(cache: Cache) -> dict[str, Any]:
    """What lies on disk and is not in the cache, and what has changed; where the data set is not, that it is not."""
    generated = source_type(cache.config.data).generated
    try:
        if not generated and not cache.source_root.is_dir():
            here = cache.source_root.exists()
            lacks = "is a file: compared once it is a folder" if here else "is not there: compared once it is"
            return {"missing": f"{cache.source_root.absolute()} {lacks}"}
        changes = find_changes(cache)
    except (UserError, OSError) as error:
        return {"unreadable": one_line(error)}
    examples = {"changed": list(changes.changed[:EXAMPLES]), "gone": list(changes.gone[:EXAMPLES])}
    not_compared = {"not_compared": changes.not_compared} if changes.not_compared else {}
    stopping = trainings_on(cache.run, cache.manifest) if changes.added and not cache.is_shared else []
    begun = " and ".join(map(str, stopping))
    stays = {"stays_as_it_is": f"{begun} began with it: choose another --run, or delete {begun}"} if begun else {}
    return {"not_in_the_cache": changes.added, **stays, **examples, **not_compared}


def _not_counted(cache: Cache, complete: bool) -> dict[str, str]:
    """Where images in archives are counted that no annotation names, while `left_out` does not have them."""
    try:
        source = cache.source
    except UserError:
        return {}
    if not isinstance(source, ListsMembers) or not source.archives_on_disk():
        return {}
    if complete and members_are_recorded(cache.storage):
        return {}
    return {"not_counted": f"images in archives {UNNAMED}: see `lcm precompute --run {cache.owner.root} --dry-run`"}


def _under_way(workers: Sequence[WorkerStatus], done: Collection[str]) -> tuple[set[str], dict[str, str]]:
    """Tasks that a living worker has in hand, and those that others left undone, with the reason."""
    running = {task for worker in workers if worker.alive for task in worker.tasks} - set(done)
    failed = {
        task: worker.error.strip().splitlines()[-1] if worker.error else f"worker {worker.name} is gone"
        for worker in workers
        if not worker.alive
        for task in worker.tasks
        if task not in running and task not in done
    }
    return running, failed


def _training_status(folder: Path, steps: int) -> dict[str, Any]:
    saved = saved_steps(folder / "checkpoints")
    return {"steps": steps, "done": saved[-1] if saved else 0, "loss": last_loss(folder)}
