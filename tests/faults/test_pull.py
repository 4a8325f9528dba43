"""A cache that is pulled from a store whose objects were damaged: nothing damaged arrives, and a repair mends it."""

import shutil

import pytest

from lcm_distill.config import load_preset
from lcm_distill.core.errors import DataError
from lcm_distill.pipeline.object_store import RemoteStorage
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.precompute import precompute
from lcm_distill.stages.pull import pull
from lcm_distill.stages.verify import Verification
from tests.faults.test_damage import TINY

KINDS = ("manifest/latents", "manifest/text", "manifest/catalog", "zarr.json", "/c/", "catalog/captions")


@pytest.fixture(scope="module")
def stored(bucket, tmp_path_factory):
    """A run whose cache is in a store, with that store and what it holds."""
    location = f"{bucket}/damaged"
    config, run = load_preset("shapes", [*TINY, f"cache.location={location}"]), RunFolder(tmp_path_factory.mktemp("s"))
    run.open(config)
    list(precompute(config, run))
    storage = RemoteStorage(location)
    names = [name for folder in ("catalog", "manifest", "latents_64", "text") for name, _ in storage._below(folder)]
    return config, run, storage, {name: storage.read(name) for name in names}


@pytest.mark.trials(full=60, sample=3)
def test_what_is_pulled_is_what_was_written(trials, stored, tmp_path):
    """An object of a cache in a store flipped or cut, and the cache pulled"""
    config, run, storage, sound = stored
    for trial in trials:
        alike = [name for name in sound if KINDS[trial % len(KINDS)] in name]
        name = alike[trials.random.integers(len(alike))]
        content = bytearray(sound[name])
        content[trials.random.integers(len(content))] ^= 1 << trials.random.integers(8)
        storage.put(name, [content[: len(content) // 2] if trial % 4 == 3 else content])
        here = RunFolder(tmp_path / str(trial), run)
        here.cache = here.root / "cache"
        with pytest.raises(DataError, match=r"lcm verify --repair"):
            list(pull(config, here))
        arrived = {
            str(path.relative_to(here.cache)): path.read_bytes() for path in here.cache.rglob("*") if path.is_file()
        }
        assert all(content == sound[arrival] for arrival, content in arrived.items())
        verification = Verification(config, run)
        list(verification.check())
        list(verification.repair())
        verification.raise_if_broken()
        list(pull(config, here))
        shards = {path for path in sound if "/c/" in path or path.endswith(("zarr.json", "captions.parquet"))}
        assert all((here.cache / path).read_bytes() == sound[path] for path in shards)
        storage.put(name, [sound[name]])
        shutil.rmtree(here.root)
        trials.count("refused and mended")
