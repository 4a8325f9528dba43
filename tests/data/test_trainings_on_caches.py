"""A data set does not grow under a training that has begun on its cache, of its run or another, and says why."""

import pytest

from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.status import status


def test_status_says_why_a_data_set_does_not_grow(data):
    data.encode()
    data.run.distill.mkdir()
    data.add("m9", "a new caption", 9)
    data.encode()
    found, training = status(data.config, data.run)["precompute"]["data"], data.run.distill
    assert found["not_in_the_cache"] == 1 and found["stays_as_it_is"] == (
        f"{training} began with it: choose another --run, or delete {training}"
    )


def test_a_data_set_does_not_grow_under_a_training_of_another_run(data, tmp_path):
    data.encode()
    (data.root / "bad.jpg").write_bytes(b"no image")
    (data.root / "bad.txt").write_text("bad")
    data.encode()
    second = RunFolder(tmp_path / "second")
    second.distill.mkdir(parents=True)
    Cache.local(data.config.sharing(data.config, data.run.root), second).hold()
    before = data.rows()
    data.add("m9", "a new caption", 9)
    data.encode()
    assert data.rows() == before
    said = status(data.config, data.run)["precompute"]
    begun = f"{second.distill} and {second.held_cache}"
    assert said["data"]["stays_as_it_is"] == f"{begun} began with it: choose another --run, or delete {begun}"
    assert said["try_again"].endswith(f"--retry-quarantined, once {begun} are deleted")
    with pytest.raises(UserError, match=f"would change the cache that {begun} began with"):
        data.encode(retry_quarantined=True)
    second.held_cache.unlink()  # as the message says; a note of a run that is gone is none
    data.encode()
    assert data.rows().keys() - before.keys() == {"m9.jpg"}
