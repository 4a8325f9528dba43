"""The caches that a teacher learns from: the run's own, and those of other runs mixed in by share."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lcm_distill.config import Config, PretrainConfig, load_file
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.loader import Batches, MixedBatches
from lcm_distill.data.cache.shared_cache import width_differences
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.engine.world import World


def mixture(config: Config, settings: PretrainConfig, run: RunFolder) -> list[tuple[Cache, float]]:
    """The caches to train on, each with its share of the samples.

    Raises:
        UserError: a cache that is mixed in is missing, or was made for another network or with other encoders.
    """
    own = [(Cache.open(config, run), settings.own_share)] if settings.own_share else []
    others = mixed_in(config, settings).items()
    return own + [(Cache.open(other, RunFolder(Path(root))), settings.caches[root]) for root, other in others]


def open_mixture(config: Config, settings: PretrainConfig, run: RunFolder, world: World) -> Batches:
    """This rank's batches from all caches of the mixture.

    Raises:
        UserError: a cache is incomplete or does not fit.
    """
    caches, size = mixture(config, settings, run), settings.batch_size
    if settings.own_share and world.is_main:
        caches[0][0].hold()
    if not settings.caches:
        return caches[0][0].batches(size, config.seed, world.rank, world.size)
    parts = [cache.batches(size, config.seed) for cache, _ in caches]
    return MixedBatches(parts, [share for _, share in caches], size, world.rank, world.size)


def sources(caches: Sequence[tuple[Cache, float]], batches: Batches, rows: Iterable[int]) -> list[str]:
    """Origins of samples by their rows; in a mixture, each is preceded by the folder of its run."""
    if not isinstance(batches, MixedBatches):
        return caches[0][0].sample_paths(rows)
    located = [(caches[number][0], row) for number, row in map(batches.cache_of, rows)]
    return [f"{cache.run.root}: {cache.sample_paths([row])[0]}" for cache, row in located]


def mixed_in(config: Config, settings: PretrainConfig) -> dict[str, Config]:
    """Configurations of the runs whose caches are mixed in, by folder, with this run's network.

    Raises:
        UserError: there is no such run, or its cache does not fit.
    """
    return {root: _fitting(config, root) for root in sorted(settings.caches)}


def _fitting(config: Config, root: str) -> Config:
    run = RunFolder(Path(root))
    other = load_file(run.require(run.config, "name folders of runs in pretrain.caches"))
    differences = other.differences(config, ["encoders"]) + width_differences(config.model, other.model)
    if config.resolution not in other.data.resolutions:
        differences.append(f"data.resolutions = {other.data.resolutions} without {config.resolution}")
    if differences:
        raise UserError(f"pretrain.caches: {root} was made with {'; '.join(differences)}")
    return other.model_copy(update={"model": config.model})
