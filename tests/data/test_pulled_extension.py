"""An extension that was killed in an object store: what was pulled before stays whole until it is done there."""

import pytest

from lcm_distill import assets
from lcm_distill.data.cache.cache import Cache
from tests.command_line import lcm
from tests.data.test_interrupted_extension import COMMIT, EARLIER, extended, killed, precompute
from tests.files import cache_files


@pytest.fixture
def stored(data, bucket, tmp_path):
    """The small data set, encoded in a store of its own."""
    own = [f"cache.location={bucket}/{tmp_path.name}", f"model.teacher={assets.TEACHER}"]
    data.config = data.config.changed(own, "test")
    data.encode()
    data.run.open(data.config)
    return data


def pull(data):
    return lcm("cache", "pull", "--run", data.run.root)


def samples_here(data) -> int:
    """Of the cache in the run folder, which is whole."""
    return len(Cache.local(data.config, data.run).require_complete().samples)


@pytest.mark.parametrize("writes", [3, COMMIT, COMMIT + 4])
def test_what_was_pulled_before_stays_whole(stored, monkeypatch, writes):
    assert pull(stored).exit_code == 0
    extended(stored)
    before = cache_files(stored.run.cache)
    with monkeypatch.context() as patch:
        assert killed(stored, patch, writes)
    pulled = pull(stored)
    if writes < COMMIT:
        assert pulled.exit_code == 0, pulled.output
    else:
        said = f"is being extended and lacks 2 shards: run `lcm precompute --run {stored.run.root}` first"
        assert pulled.exit_code == 2 and said in pulled.stderr and pulled.stderr.count("\n") == 1
    assert cache_files(stored.run.cache) == before and samples_here(stored) == EARLIER
    assert precompute(stored).exit_code == 0 and pull(stored).exit_code == 0
    assert samples_here(stored) == EARLIER + 2


def test_where_nothing_was_pulled_before_what_is_there_arrives(stored, monkeypatch):
    extended(stored)
    with monkeypatch.context() as patch:
        assert killed(stored, patch, COMMIT)
    assert pull(stored).exit_code == 0
    refused = lcm("distill", "--run", stored.run.root)
    assert refused.exit_code == 2 and "lacks 2 shards: run `lcm cache pull" in refused.stderr
    assert f"after `lcm precompute --run {stored.run.root}` where the store lacks it" in refused.stderr
    assert precompute(stored).exit_code == 0 and pull(stored).exit_code == 0
    assert samples_here(stored) == EARLIER + 2
