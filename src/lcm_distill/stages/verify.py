"""Is a cache what was written? And if not: making again what is broken."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from lcm_distill.config import Config
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.data.cache.cache import CATALOG_TASK, cache_storage
from lcm_distill.data.cache.repair import encode_again, repair_catalog, repair_shards
from lcm_distill.data.cache.verification import Check, Damage
from lcm_distill.pipeline.manifest import FOLDER
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress


class Verification:
    """One look at a cache, where it is made: in the run folder or in an object store.

    Attributes:
        repaired: names of the tasks that `repair` did again.
    """

    def __init__(self, config: Config, run: RunFolder) -> None:
        self.config, self.run, self.cache = config, run, cache_storage(config, run)
        self.repaired: list[str] = []
        self._look = Check(config, self.cache)
        if not self.cache.listing(FOLDER) and not self.cache.listing("catalog"):
            raise UserError(f"{self.cache.locate(FOLDER)} is missing: run `lcm precompute` into {run.root} first")

    @property
    def damage(self) -> list[Damage]:
        """What `check` found, and after `repair` what is still broken."""
        return self._look.damage

    @property
    def rows(self) -> int:
        """Rows whose bytes were compared."""
        return self._look.rows

    @property
    def pending(self) -> int:
        """Tasks that nothing was written of yet; that is no damage."""
        return self._look.pending

    def result(self) -> dict[str, Any]:
        """What was found, for a table or for JSON."""
        return {
            "sound": not self.damage,
            "rows": self.rows,
            "pending": self.pending,
            "repaired": self.repaired,
            "damage": [asdict(damage) for damage in self.damage],
        }

    def raise_if_broken(self) -> None:
        """Raises DataError: there is damage; one line with the remedy."""
        if self.damage:
            remedy = "put the source back as it was" if self.repaired else "`lcm verify --repair` encodes it again"
            raise DataError(f"{self.cache.locate()} is damaged in {len(self.damage)} places: {remedy}")

    def check(self) -> Iterator[Progress]:
        """Compare catalog, manifest and every committed shard with what was recorded when they were written."""
        self._look = Check(self.config, self.cache)
        yield from self._look.everything()

    def repair(self) -> Iterator[Progress]:
        """Encode the broken shards again and look at them once more.

        Raises:
            DataError: the source no longer holds what the cache was made from; nothing was changed.
        """
        if any(damage.task == CATALOG_TASK for damage in self.damage):
            repair_catalog(self.config, self.run, self.damage)
            self.repaired.append(CATALOG_TASK)
            yield from self.check()
        broken = repair_shards(self.config, self.run, self.damage)
        if not broken:
            yield from self.check()
            return
        yield from encode_again(self.config, self.run, broken)
        self.repaired += [task.name for task in broken]
        again = Check(self.config, self.cache, rows=self.rows, pending=self.pending)
        yield from again.tasks(broken, "verify again")
        self._look = again
