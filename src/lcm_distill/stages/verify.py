"""Checking a cache, and repairing what is damaged."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import Any

from lcm_distill.config import Config
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.words import counted
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK
from lcm_distill.data.cache.shared_cache import ELSEWHERE, require_own
from lcm_distill.data.cache.unfinished import completion
from lcm_distill.data.cache.verification import Check, Damage
from lcm_distill.evaluation.verification import damaged_results
from lcm_distill.pipeline.manifest import FOLDER
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.training.checkpointing.hashes import damaged_checkpoints


class Verification:
    """Check of a run, and repair of its cache where that is made: in the run folder or in an object store.

    Attributes:
        repaired: names of the tasks that `repair` did again.
        results: damaged files of the run beside the cache, and what to do about each, which is not `repair`.
        lost: images and captions whose damaged rows `repair` could not restore, as they are encoded otherwise now.

    Raises:
        UserError: there is no cache.
    """

    def __init__(self, config: Config, run: RunFolder) -> None:
        self.cache = Cache.open(config, run)
        self.repaired: list[str] = []
        self.lost: list[str] = []
        self.results: dict[str, str] = {}
        self._run = run
        self._check = Check(self.cache)
        storage = self.cache.storage
        if self.cache.is_shared:
            self.cache.owner.require(self.cache.owner.config, ELSEWHERE)
        if not storage.listing(FOLDER) and not storage.listing("catalog"):
            raise UserError(
                f"{storage.locate(FOLDER)} is missing: run `lcm precompute --run {self.cache.owner.root}` first"
            )

    @property
    def damage(self) -> list[Damage]:
        """What `check` found; after `repair`, what is still damaged."""
        return self._check.damage

    @property
    def rows(self) -> int:
        """Number of rows whose bytes were compared, each counted once."""
        return self._check.rows

    @property
    def pending(self) -> int:
        """Number of tasks that `lcm precompute` has still to do, which is no damage."""
        return self._check.pending

    def result(self) -> dict[str, Any]:
        """What was found, for a table or JSON."""
        return {
            "cache": self.cache.storage.locate(),
            "sound": not self.damage and not self.results,
            "rows": self.rows,
            "pending": self.pending,
            "unfinished": completion(self.cache.owner, self.pending),
            "repaired": self.repaired,
            "lost": self.lost,
            "damage": [
                *(asdict(damage) for damage in self.damage),
                *({"task": None, "path": path, "row": None, "reason": how} for path, how in self.results.items()),
            ],
        }

    def raise_if_broken(self) -> None:
        """Raise an error with the remedy if there is damage.

        Raises:
            DataError: there is.
        """
        if self.lost:
            rows = counted(len(self.lost), "damaged row that is", "damaged rows that are")
            raise DataError(
                f"{self.cache.storage.locate()} has {rows} encoded otherwise now, such "
                f"as that of {self.lost[0]}: put back what they were encoded from, and device, libraries and "
                "encoders.batch_size where those have changed, and repair again; or delete the damaged shards and run "
                f"`lcm precompute --run {self.cache.owner.root}`, which encodes what is there now"
            )
        if self.damage:
            where = self.cache.storage.locate()
            raise DataError(
                f"{where} is damaged in {counted(len(self.damage), 'place')}: {self.cache.repair}, or names the rows "
                "that it cannot restore"
            )
        for path, how in self.results.items():
            raise DataError(f"{self._run.root} has {counted(len(self.results), 'damaged file')}, such as {path}: {how}")

    def check(self, label: str = "verify") -> Iterator[Progress]:
        """Compare what is committed with what was recorded when it was written: the cache, and results of the run."""
        yield from self._check_cache(label)
        trainings = (self._run.distill, self._run.pretrain)
        checkpoints = (damaged_checkpoints(training / "checkpoints") for training in trainings)
        self.results = dict(chain(damaged_results(self._run), *checkpoints))

    def _check_cache(self, label: str) -> Iterator[Progress]:
        self._check = Check(self.cache)
        yield from self._check.everything(label)

    def repair(self) -> Iterator[Progress]:
        """Encode the damaged shards again and check them.

        Raises:
            DataError: the data set no longer contains what the cache was made from; nothing was changed.
            UserError: an encoder has other weights than those that encoded the cache, or the cache is another run's;
                nothing was changed.
        """
        from lcm_distill.data.cache.repair import encode_again, repair_catalog  # imports PyTorch, as the check does not

        require_own(self.cache.config.cache, self._run, "verify --repair")
        if any(damage.task == CATALOG_TASK for damage in self.damage):
            repair_catalog(self.cache, self.damage)
            self.repaired.append(CATALOG_TASK)
            yield from self._check_cache("verify all")
            if not self.damage:
                return
        names: list[str] = []
        self.lost = yield from encode_again(self.cache, self.damage, names)
        if not names:
            yield from self._check_cache("verify all")
            return
        self.repaired += names
        again = {*names, *self._check.unfinished}
        compared = {task: rows for task, rows in self._check.rows_of.items() if task not in again}
        self._check = Check(self.cache, rows_of=compared)
        yield from self._check.tasks([task for task in self.cache.tasks() if task.name not in compared], "verify again")
