# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""What a run's models, cache and images are, as far as it is recorded: nothing large is read or hashed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lcm_distill.config import Config
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.shared_cache import content
from lcm_distill.evaluation.table_schemas import IMAGE_COLUMNS
from lcm_distill.models.checkpoint_description import read_description_and_hash
from lcm_distill.models.networks import teacher_path
from lcm_distill.pipeline.manifest import FOLDER, Manifest
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage


def recorded_models(config: Config, run: RunFolder) -> Iterator[tuple[str, Path, str]]:
    """Teacher and student where their files are here: role, file, and the hash of the tensors that it records.

    The hash is empty where the file records none, as one of another tool does not, and where it cannot be read.
    """
    for role, path in (("teacher", teacher_path(config.model)), ("student", run.student)):
        if path.exists():
            try:
                yield role, path, read_description_and_hash(path)[1] or ""
            except UserError:
                yield role, path, ""


def identities(config: Config, run: RunFolder, measured: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """What, where and SHA-256: of the models that were measured, or else `recorded_models`, and of the cache.

    That of the cache is of what its manifest lists: tasks, and their files with hashes.

    Args:
        measured: `model`, `checkpoint` and `checkpoint_sha256` of rows of `metrics.parquet`.
    """
    found = [(row["model"], row["checkpoint"], row["checkpoint_sha256"] or "") for row in measured]
    found = found or [(role, str(path), sha256) for role, path, sha256 in recorded_models(config, run)]
    return [*found, *_cache_identity(Cache.open(config, run))]


def _cache_identity(cache: Cache) -> Iterator[tuple[str, str, str]]:
    """None without a cache; an empty hash where its manifest has no lists of tasks."""
    try:
        if cache.manifest.task_names():
            yield "cache", cache.storage.locate(), content(cache.manifest)
    except DataError:
        yield "cache", cache.storage.locate(), ""


def unmeasured_images(run: RunFolder) -> Iterator[tuple[str, int, float]]:
    """Image sets that nothing was measured of, as `--images-only` leaves them: name, images, and seconds they took.

    Raises:
        DataError: a manifest is damaged.
    """
    for folder in sorted(manifest.parent for manifest in run.evaluate.glob(f"*/{FOLDER}")):
        if not any(folder.glob(f"*/{FOLDER}")):
            remedy = f"`lcm evaluate --run {run.root}` makes it again"
            seconds = (
                Manifest(LocalStorage(folder), IMAGE_COLUMNS, remedy).read(columns=["seconds"])["seconds"].to_pylist()
            )
            yield folder.name.rpartition("-")[0], len(seconds), sum(second or 0.0 for second in seconds)
