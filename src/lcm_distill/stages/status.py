# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false
"""The progress of a run, from what it has committed, and SQL over it."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import duckdb
import pyarrow.parquet as pq

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.rate import encode_rate
from lcm_distill.data.cache.rows import CATALOG_TASK
from lcm_distill.pipeline.executors.heartbeats import WorkerStatus, read_workers
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.checkpoints import Checkpoints

VIEWS = {
    "samples": "cache/catalog/samples.parquet",
    "captions": "cache/catalog/captions.parquet",
    "manifest": "cache/manifest/*.parquet",
    "events": "distill/events/*.parquet",
    "pretrain_events": "pretrain/events/*.parquet",
    "images": "evaluate/*/manifest/*.parquet",
    "scores": "evaluate/*/*/manifest/*.parquet",
    "metrics": "metrics.parquet",
    "guidance": "guidance.parquet",
    "schedule": "schedule/manifest/*.parquet",
    "ablation": "ablation.parquet",
}
"""Views that `inspect` offers, and the files below the run folder that they read."""


def status(config: Config, run: RunFolder) -> dict[str, Any]:
    """Work done and to do by stage, of those that have begun, and quarantined samples by reason."""
    figures: dict[str, Any] = {"run": str(run.root), "precompute": _cache_status(config, run)}
    if config.pretrain and run.pretrain.exists():
        figures["pretrain"] = _training_status(run.pretrain, config.pretrain.steps)
    if run.distill.exists():
        figures["distill"] = _training_status(run.distill, config.distill.steps)
    if run.evaluate.exists():
        sets = len(list(run.evaluate.glob("*/manifest")))
        figures["evaluate"] = {"image_sets": sets, "metrics": run.metrics.is_file()}
    return figures | {"student": run.student.is_file()}


def inspect(config: Config, run: RunFolder, sql: str) -> list[dict[str, Any]]:
    """Rows of a query over `VIEWS`; those without a file yet are absent. The query can read nothing else.

    Of a cache that is made in an object store, what the query names is fetched.

    Raises:
        UserError: DuckDB refuses the query.
    """
    with duckdb.connect() as connection:
        if config.cache.location:
            for view, table in _remote_tables(config, run, sql).items():
                connection.register(view, table)
        for view, pattern in VIEWS.items():
            if any(run.root.glob(pattern)) and not (config.cache.location and pattern.startswith("cache/")):
                path = str((run.root / pattern).resolve()).replace("'", "''")
                connection.sql(f"CREATE VIEW {view} AS FROM read_parquet('{path}', union_by_name=true)")
        folder = str(run.root.resolve()).replace("'", "''")
        connection.sql(f"SET allowed_directories=['{folder}/']")
        connection.sql("SET enable_external_access=false")
        connection.sql("SET lock_configuration=true")
        try:
            relation = cast(duckdb.DuckDBPyRelation | None, connection.sql(sql))
            if relation is None:
                raise UserError("the query returns no rows: write a SELECT")
            return relation.to_arrow_table().to_pylist()
        except duckdb.Error as error:
            raise UserError(f"DuckDB: {' '.join(str(error).split())}") from error


def _remote_tables(config: Config, run: RunFolder, sql: str) -> dict[str, Any]:
    cache = Cache.open(config, run)
    if not cache.storage.listing("catalog"):
        return {}
    tables: dict[str, Callable[[], Any]] = {
        "samples": lambda: cache.read_catalog().samples,
        "captions": lambda: cache.read_catalog().captions,
        "manifest": lambda: cache.manifest.read(),
    }
    return {view: read() for view, read in tables.items() if view in sql}


def _cache_status(config: Config, run: RunFolder) -> dict[str, Any]:
    """`failed` names tasks that are not done, and why the worker that last had each in hand did not finish it.

    `damaged` counts tasks that were committed and whose file is gone or has another size by now.
    """
    cache = Cache.open(config, run)
    manifest = cache.manifest
    names = set(manifest.task_names())
    if CATALOG_TASK not in names:
        return {"tasks": None, "done": 0, "running": 0, "failed": {}, "damaged": 0, "quarantined": {},
                "rows_per_second": None, "seconds_left": None}  # fmt: skip
    tasks = cache.tasks()
    done = manifest.done(tasks)
    running, failed = _under_way(read_workers(cache.storage), done)
    rows = inspect(
        config,
        run,
        "SELECT error, count(*) AS n FROM manifest WHERE status = 'quarantined' GROUP BY error ORDER BY n DESC",
    )
    return {
        "tasks": len(tasks),
        "done": len(done),
        "running": len(running),
        "failed": failed,
        "damaged": sum(task.name in names and task.name not in done for task in tasks),
        "quarantined": {row["error"]: row["n"] for row in rows},
        **encode_rate(manifest, tasks, done),
    }


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


def _training_status(folder: Any, steps: int) -> dict[str, Any]:
    saved = Checkpoints(folder / "checkpoints", "").steps()
    events = sorted((folder / "events").glob("*.parquet"))
    last = pq.read_table(events[-1]).to_pylist()[-1] if events else {}
    return {"steps": steps, "done": saved[-1] if saved else 0, "loss": last.get("loss")}
