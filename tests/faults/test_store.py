"""An object store that fails on half of the requests: retried, or one line; nothing wrong is stored."""

import os
from collections.abc import Iterator
from functools import partial

import pytest

from lcm_distill.config import load_preset
from lcm_distill.core.errors import StorageError
from lcm_distill.pipeline import object_store
from lcm_distill.pipeline.object_store import RemoteStorage, _open
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import shapes
from tests.faults.commands import Ended, lcm
from tests.faults.store import KINDS, UnreliableStore, point_at
from tests.files import shard_files

TINY = ["data.images=24", "data.valid_fraction=0.5", "cache.shard_rows=16", "encoders.batch_size=8"]


@pytest.fixture
def endpoint(bucket, monkeypatch) -> Iterator[str]:
    """The URL of the sound store."""
    _open.cache_clear()
    yield os.environ["AWS_ENDPOINT_URL"]
    _open.cache_clear()


@pytest.mark.parametrize("kind", ["503", "reset", "cut"])
def test_a_request_that_fails_once_is_made_again(endpoint, monkeypatch, trials_random, kind):
    sound = RemoteStorage("s3://bucket/again")
    for number in range(3):
        sound.put(f"folder/{number}", [b"content" * 9])
    _open.cache_clear()
    with UnreliableStore(endpoint, trials_random, share=1.0, first=1, kinds=(kind,)) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        assert list(RemoteStorage("s3://bucket/again").listing("folder")) == ["folder/0", "folder/1", "folder/2"]
        assert store.failures == {kind: 1}
        store._requests = 0
        assert RemoteStorage("s3://bucket/again").read("folder/1") == b"content" * 9


def test_a_store_that_never_answers_whole_is_one_line(endpoint, monkeypatch, trials_random):
    RemoteStorage("s3://bucket/never").put("folder/0", [b"content"])
    _open.cache_clear()
    monkeypatch.setattr(object_store, "PAUSES", (0.0, 0.0))
    with UnreliableStore(endpoint, trials_random, share=1.0, first=10**6, kinds=("cut",)) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        with pytest.raises(StorageError, match=r"s3://bucket/never/folder: .*: check the bucket and your keys"):
            RemoteStorage("s3://bucket/never").listing("folder")


@pytest.fixture
def trials_random():
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> dict[str, bytes]:
    """The shards of a cache that is made on a local disk."""
    run = RunFolder(tmp_path_factory.mktemp("local"))
    assert lcm("precompute", *shapes(TINY), "--run", run.root).is_clean(0)
    return shard_files(run.cache)


@pytest.mark.trials(full=10, sample=1)
def test_a_store_that_fails_stores_nothing_wrong(trials, endpoint, local, tmp_path):
    """A store that answers 503, resets, cuts files and lists, and flips read bytes, on half of 200 requests."""
    for trial in trials:
        run, location = RunFolder(tmp_path / str(trial)), f"s3://bucket/unreliable-{trial}"
        begun = load_preset("shapes", [*TINY, f"cache.location={location}"])
        run.root.mkdir()
        run.config.write_bytes(begun.to_toml().encode())
        reading = ("status",), ("inspect", "FROM samples"), ("verify",), ("cache", "pull")
        for kinds, commands in ((KINDS[:-1], [("precompute",)]), (KINDS, reading)):
            with UnreliableStore(endpoint, trials.random, kinds=kinds) as store:
                for words in commands:
                    ended = through(store.url, *words, "--run", str(run.root))
                    assert ended.is_clean(0, 3, 4), (words, ended)
                assert store.failures.total() > 10
        for words in (("precompute",), ("verify", "--repair"), ("cache", "pull"), ("verify",)):
            ended = through(endpoint, *words, "--run", str(run.root))
            assert ended.is_clean(0), (words, ended)
        assert shard_files(run.cache) == local
        stored = RemoteStorage(location)
        assert {name: stored.read(name) for name in local} == local
        trials.count("whole")


def through(url: str, *words: str) -> Ended:
    """How a command ends whose store is at a URL."""
    return lcm(*words, fault=partial(point_at, url), seconds=300)
