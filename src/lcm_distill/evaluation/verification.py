# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Whether the files of a run beside its cache are what was written."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.io_errors import require_reachable
from lcm_distill.core.regular_files import read_regular
from lcm_distill.evaluation.table_schemas import IMAGE_COLUMNS, SCORE_COLUMNS
from lcm_distill.models.checkpoint_identity import checkpoint_sha256
from lcm_distill.pipeline.file_verification import examine
from lcm_distill.pipeline.hashed_parquet import UNREADABLE, is_intact
from lcm_distill.pipeline.manifest import FOLDER, Manifest
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage

REMEDIES = {
    "cache": "`lcm verify --repair --run {run}` makes it again",
    "distill": "delete it; only the records of its steps are lost",
    "pretrain": "delete it; only the records of its steps are lost",
    "schedule": "`lcm schedule --run {run}` makes it again",
    "evaluate": "`lcm evaluate --run {run}` makes it again",
    "ablation.parquet": "delete it, and `lcm ablate --run {run}` writes it again",
    "": "delete it, and `lcm evaluate --run {run}` writes it again",
}
"""What to do about a damaged file, by the part of the run folder that it is in."""


OTHERS = ("cache", "images", "pictures", "checkpoints", "logs", "locks", "tensorboard")
"""Folders in which nothing is looked for here."""


def require_intact(run: RunFolder, files: Iterable[Path]) -> None:
    """Check the hashes of Parquet files.

    Raises:
        DataError: one is damaged.
    """
    for file in files:
        if not _is_intact(file):
            raise DataError(f"{file} is damaged: {_remedy(run, file)}")


def damaged_results(run: RunFolder) -> Iterator[tuple[str, str]]:
    """Files of a run beside its cache and checkpoints that are not what was written, and what to do about each.

    Raises:
        OSError: a file or folder cannot be read.
    """
    _require_listed(run.root)
    for path in (run.teacher, run.student):
        try:
            if path.is_file():
                checkpoint_sha256(path)
        except UserError as error:
            yield path.name, str(error)
    for pattern in ("*.parquet", "*/events/*.parquet"):
        for path in sorted(run.root.glob(pattern)):
            if not _is_intact(path):
                yield str(path.relative_to(run.root)), _remedy(run, path)
    for pattern, columns in (("*", IMAGE_COLUMNS), ("*/*", SCORE_COLUMNS)):
        for folder in sorted(run.evaluate.glob(f"{pattern}/{FOLDER}")):
            yield from _damaged_of_manifest(run, Manifest(LocalStorage(folder.parent), columns))


def _require_listed(root: Path) -> None:
    """Check that the folders with results can be listed; a pattern would find nothing in one that cannot.

    Raises:
        OSError: one cannot.
    """

    def refuse(error: OSError) -> None:
        raise error

    for _, folders, _ in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if name not in OTHERS]


def _damaged_of_manifest(run: RunFolder, manifest: Manifest) -> Iterator[tuple[str, str]]:
    for part in manifest.files():
        path = Path(manifest.storage.locate(part))
        try:
            files = [file for entry, _ in manifest.rows(part) for file in entry.files]
        except DataError:
            yield str(path.relative_to(run.root)), _remedy(run, path)
            continue
        for file in files:
            if reason := examine(manifest.storage, file)[0]:
                place = Path(manifest.storage.locate(file.name)).relative_to(run.root)
                yield str(place), f"{reason}: {_remedy(run, path)}"


def _is_intact(file: Path) -> bool:
    try:
        return is_intact(read_regular(file))
    except FileNotFoundError:
        return True  # it was replaced meanwhile
    except UNREADABLE as error:
        require_reachable(error, str(file))
        return False


def _remedy(run: RunFolder, file: Path) -> str:
    return REMEDIES.get(file.relative_to(run.root).parts[0], REMEDIES[""]).format(run=run.root)
