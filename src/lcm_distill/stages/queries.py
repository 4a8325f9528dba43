# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownParameterType=false
"""SQL over what a run has committed, which reads the run's tables and nothing else, and writes nothing."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError
from lcm_distill.core.interruption import queries_interrupted
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK
from lcm_distill.evaluation.verification import require_intact
from lcm_distill.pipeline.parquet_tables import open_tables
from lcm_distill.pipeline.run_folder import RunFolder

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

MADE_BY = {
    "samples": "precompute",
    "captions": "precompute",
    "manifest": "precompute",
    "events": "distill",
    "pretrain_events": "pretrain",
    "images": "evaluate",
    "scores": "evaluate",
    "metrics": "evaluate",
    "guidance": "evaluate --guidance 1,2,3",
    "schedule": "schedule",
    "ablation": "ablate",
}
"""The command that makes each view's files."""

READ_ONLY: dict[str, Any] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}
"""DuckDB opens no file and no extension and sees no variable of this process: views are read by pyarrow."""


def select(config: Config, run: RunFolder, sql: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a query over `VIEWS`; those without a file yet are absent.

    A column whose name another one before it has gets a number: `model`, `model_2`.

    Views that the query does not name are not opened. Of a cache that is made in an object store, they are fetched.

    Raises:
        UserError: DuckDB refuses the query.
        DataError: a file that it reads is damaged.
    """
    table = _query(config, run, sql, _open_named(config, run, sql))
    return table.column_names, table.to_pylist()


def inspect(config: Config, run: RunFolder, sql: str) -> list[dict[str, Any]]:
    """The rows of `select`."""
    return select(config, run, sql)[1]


def inspect_view(config: Config, run: RunFolder, view: str, sql: str) -> list[dict[str, Any]]:
    """As `inspect`, of a query that names one of `VIEWS`; no rows where it has no file yet."""
    tables = _open_named(config, run, sql)
    return _query(config, run, sql, tables).to_pylist() if view in tables else []


def _named(sql: str) -> list[str]:
    """The views that a query names, as whole words; all if it names none."""
    return [view for view in VIEWS if re.search(rf"\b{view}\b", sql.lower())] or list(VIEWS)


def _open_named(config: Config, run: RunFolder, sql: str) -> dict[str, Any]:
    return {view: table for view in _named(sql) if (table := _open(config, run, view)) is not None}


def _query(config: Config, run: RunFolder, sql: str, tables: Mapping[str, Any]) -> pa.Table:
    with queries_interrupted(), duckdb.connect(config=READ_ONLY) as connection:
        for view, table in tables.items():
            connection.register(view, table)
        connection.execute("SET lock_configuration=true")
        try:
            relation = cast(duckdb.DuckDBPyRelation | None, connection.sql(sql))
            if relation is None:
                raise UserError("the query returns no rows: write a SELECT")
            found = relation.to_arrow_table()
            return found.rename_columns(_distinct(found.column_names))
        except duckdb.InterruptException:
            raise
        except (duckdb.Error, pa.ArrowException, OSError, OverflowError, ValueError) as error:
            for view in _named(sql):
                require_intact(*_files(config, run, view))
            raise UserError(f"DuckDB: {_explain(error, tables.keys(), run)}") from error


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, those that came before with the lowest number that makes another name."""
    taken: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(2))
        taken.append(next(new for new in chain([name], numbered) if new not in taken))
    return taken


def _explain(error: Exception, tables: Collection[str], run: RunFolder) -> str:
    """An error in one line; where a table is missing, what makes it instead of DuckDB's guess of another name.

    Args:
        tables: the views that were opened.
    """
    text = " ".join(str(error).split())
    missing = re.match(r"Catalog Error: Table with name (\S+) does not exist!", text)
    if missing is None:
        return text
    view = missing[1].lower()
    if view in VIEWS.keys() - tables:
        return f"{missing[0]} `lcm {MADE_BY[view]} --run {run.root}` makes it"
    return f"{missing[0]} Views are {', '.join(VIEWS)}"


def _open(config: Config, run: RunFolder, view: str) -> Any:
    """What DuckDB reads a view from; None without a file."""
    pattern = VIEWS[view]
    if config.cache.location and pattern.startswith("cache/"):
        return _remote_table(config, run, view)
    if view in ("samples", "captions") and CATALOG_TASK in (cache := Cache.local(config, run)).manifest.task_names():
        return getattr(cache.read_catalog(), view)
    owner, files = _files(config, run, view)
    require_intact(owner, files)
    return open_tables(files)


def _files(config: Config, run: RunFolder, view: str) -> tuple[RunFolder, list[Path]]:
    """The run that a view's files lie in, which is another one where the cache is that one's, and the files."""
    pattern = VIEWS[view]
    place = Cache.local(config, run).owner if pattern.startswith("cache/") else run
    return place, sorted(place.root.glob(pattern))


def _remote_table(config: Config, run: RunFolder, view: str) -> Any:
    cache = Cache.open(config, run)
    if not cache.storage.listing("catalog"):
        return None
    tables: dict[str, Callable[[], Any]] = {
        "samples": lambda: cache.read_catalog().samples,
        "captions": lambda: cache.read_catalog().captions,
        "manifest": lambda: cache.manifest.read(),
    }
    return tables[view]()
