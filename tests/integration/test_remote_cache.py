"""A cache in an object store: the bytes of a local one, looked after there, and pulled for training."""

import json

import pytest

from lcm_distill.config import load_file
from lcm_distill.pipeline.object_store import RemoteStorage
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.pull import pull
from tests.command_line import lcm, shapes
from tests.conftest import SMALL
from tests.files import cache_files, shard_files

OPTIONS = shapes(SMALL)
SHARD = "latents_64/c/1/0/0/0"


@pytest.fixture(scope="module")
def made(bucket, tmp_path_factory):
    """A run whose cache is in the bucket."""
    run = RunFolder(tmp_path_factory.mktemp("remote"))
    location = f"{bucket}/some/cache"
    result = lcm("precompute", *OPTIONS, "--set", f"cache.location={location}", "--run", run.root, "--json")
    assert result.exit_code == 0, result.output
    return run, RemoteStorage(location)


def test_what_is_stored_is_what_would_lie_here(made, finished_run):
    run, remote = made
    assert not run.cache.exists()
    for name, content in cache_files(finished_run.cache).items():
        assert remote.read(name) == content, name


def test_it_is_looked_after_where_it_is(made):
    run, _ = made
    figures = json.loads(lcm("status", "--run", run.root, "--json").stdout)["precompute"]
    assert figures["done"] == figures["tasks"] > 5 and not figures["failed"] and figures["running"] == 0
    (row,) = json.loads(
        lcm("inspect", "SELECT count(*) AS n FROM manifest WHERE kind = 'image'", "--run", run.root, "--json").stdout
    )
    assert row == {"n": 72}
    assert json.loads(lcm("verify", "--run", run.root, "--json").stdout)["rows"] > 72
    assert json.loads(lcm("precompute", "--run", run.root, "--dry-run", "--json").stdout)["precompute"]["done"] > 5
    refused = lcm("cache", "compact", "--run", run.root)
    assert refused.exit_code == 2 and "cache pull" in refused.stderr


def test_training_asks_for_a_pull_and_goes_on_after_it(made, finished_run):
    run, remote = made
    refused = lcm("distill", "--run", run.root)
    assert refused.exit_code == 2 and f"run `lcm cache pull --run {run.root}`" in refused.stderr
    sound = remote.read(SHARD)
    remote.put(SHARD, [sound[:100] + bytes([sound[100] ^ 1]) + sound[101:]])
    broken = lcm("cache", "pull", "--run", run.root)
    assert broken.exit_code == 3 and f"such as s3://bucket/some/cache/{SHARD}" in broken.stderr
    assert lcm("distill", "--run", run.root).exit_code == 2  # one shard is lacking
    verified = lcm("verify", "--run", run.root, "--json")
    assert verified.exit_code == 3
    assert [damage["row"] for damage in json.loads(verified.stdout)["damage"]][-1] is not None
    assert lcm("verify", "--run", run.root, "--repair").exit_code == 0
    assert remote.read(SHARD) == sound
    assert lcm("cache", "pull", "--run", run.root).exit_code == 0
    assert cache_files(run.cache) == cache_files(finished_run.cache)
    before = {run.cache / name: (run.cache / name).stat().st_mtime_ns for name in shard_files(run.cache)}
    assert lcm("cache", "compact", "--run", run.root).exit_code == 0
    assert lcm("cache", "pull", "--run", run.root).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert lcm("distill", "--run", run.root).exit_code == 0
    assert run.student.read_bytes() == finished_run.student.read_bytes()


def test_pulling_ends_with_one_report_that_all_is_done(made, tmp_path):
    run, _ = made
    reports = list(pull(load_file(run.config), RunFolder(tmp_path)))
    assert len(reports) > 5
    assert [report.done == report.total for report in reports].index(True) == len(reports) - 1


def test_pull_needs_something_to_pull(finished_run, made, tmp_path):
    nothing = lcm("cache", "pull", "--run", finished_run.root)
    assert nothing.exit_code == 2 and "cache.location is unset" in nothing.stderr


def test_a_pull_without_a_location_names_the_command_that_gives_one(finished_run):
    refused = lcm("cache", "pull", "--run", finished_run.root)
    words = f"`lcm precompute --run {finished_run.root} --set cache.location=s3://BUCKET/PREFIX` names the store"
    assert refused.exit_code == 2 and "cache.location is unset" in refused.stderr and words in refused.stderr
