"""An extension killed at any of its commits: commands see the earlier cache, and the same one completes it."""

import itertools
import json
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lcm_distill.data.cache import encoding
from lcm_distill.data.cache.catalog_files import BEFORE
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK
from lcm_distill.pipeline.compaction import compact
from lcm_distill.pipeline.executors.heartbeats import FOLDER as HEARTBEATS
from tests.command_line import lcm
from tests.faults.commands import lcm as lcm_alone
from tests.faults.killing import differing, kill_at, tree
from tests.files import Crash, cache_files, flip
from tests.growing import Means

EARLIER = 6
SAMPLES_ALONE, COMMIT, LAST = 3, 5, 8
"""Writes in the cache after which the new samples are there without their captions, and those of an extension: two
files put aside, two written, their commit, two forgotten, and what the data set looked like."""


def precompute(data, *more: str):
    return lcm("precompute", "--run", data.run.root, *more)


def killed(data, patch, number: int) -> bool:
    """Whether the command had so many writes and removals in the cache, and was ended after that one."""
    calls, storage = [], type(data.cache.storage)

    def then_ends(method):
        def call(self, *arguments):
            result = method(self, *arguments)
            if not arguments[0].startswith(f"{HEARTBEATS}/"):  # of which there are as many as the command takes time
                calls.append(arguments)
                if len(calls) == number:
                    raise Crash
            return result

        return call

    for name in ("put", "remove"):
        patch.setattr(storage, name, then_ends(getattr(storage, name)))
    try:
        precompute(data)
    except Crash:
        return True
    return False


def extended(data) -> None:
    data.add("a", "a new caption", 7)
    data.add("z", "another new caption", 8)


def shown(data) -> dict[str, Any]:
    """What `lcm status` says of the cache."""
    return json.loads(lcm("status", "--run", data.run.root, "--json").stdout)["precompute"]


def restored(data, kept: Path) -> None:
    shutil.rmtree(data.run.root)
    shutil.copytree(kept, data.run.root)


def require_earlier_cache(data) -> None:
    """Commands read the cache that is being extended as it was."""
    planned = precompute(data, "--dry-run", "--json")
    assert planned.exit_code == 0 and json.loads(planned.stdout)["precompute"]["done"] > 0, planned.output
    found = lcm("verify", "--run", data.run.root, "--json")
    assert found.exit_code == 0 and json.loads(found.stdout)["rows"] > 0, found.output
    assert lcm("status", "--run", data.run.root).exit_code == 0
    assert len(data.cache.read_catalog().samples) == EARLIER


@pytest.mark.parametrize("compacted", [False, True])
def test_killed_after_any_write(data, tmp_path, monkeypatch, compacted):
    """Some twenty commands, half of them killed: seconds."""
    data.encode()
    data.run.open(data.config)
    if compacted:
        list(compact(data.cache.manifest))
    kept = tmp_path / "kept"
    shutil.copytree(data.run.root, kept)
    extended(data)
    assert precompute(data).exit_code == 0
    whole = tree(data.run.root)
    for number in range(1, LAST + 1):
        restored(data, kept)
        with monkeypatch.context() as patch:
            assert killed(data, patch, number)
        if number == SAMPLES_ALONE:
            assert (data.run.cache / BEFORE).exists()
            require_earlier_cache(data)
        resumed = precompute(data)
        assert resumed.exit_code == 0, (number, resumed.output)
        assert differing(tree(data.run.root), whole) == [], number


def test_verify_and_status_say_what_completes_it_after_any_write(data, tmp_path, monkeypatch):
    """Of the whole command: a hundred commands, a quarter of them killed, in seconds."""
    data.encode()
    data.run.open(data.config)
    kept, lacking, completes = tmp_path / "kept", list[int](), f"`lcm precompute --run {data.run.root}` completes it"
    shutil.copytree(data.run.root, kept)
    extended(data)
    assert precompute(data).exit_code == 0
    whole = tree(data.run.root)
    for number in itertools.count(1):
        restored(data, kept)
        with monkeypatch.context() as patch:
            if not killed(data, patch, number):
                break
        before = cache_files(data.run.cache)
        found = lcm("verify", "--run", data.run.root, "--json", "--repair")  # which checks as without it
        assert found.exit_code == 0, (number, found.output)
        verified, status = json.loads(found.stdout), shown(data)
        assert cache_files(data.run.cache) == before and verified["damage"] == [] and status["damaged"] == 0
        assert verified["pending"] == status["tasks"] - status["done"], number
        assert verified["unfinished"] == status["unfinished"], number
        assert (completes in (verified["unfinished"] or "")) == bool(verified["pending"])
        lacking.append(verified["pending"])
        assert precompute(data).exit_code == 0 and differing(tree(data.run.root), whole) == [], number
    assert lacking[: COMMIT - 1] == [0] * (COMMIT - 1) and lacking[COMMIT - 1] == 2 and lacking[-1] == 0
    assert set(lacking[COMMIT - 1 :]) == {0, 1, 2}


@pytest.mark.parametrize("earlier", [8, 0])
def test_new_shards_alone_are_unfinished_until_their_part_is_there(data, tmp_path, monkeypatch, earlier):
    """Of an extension by whole shards, which no task grows by, and of a new cache: a few dozen commands, in seconds."""
    names = [f"n{number}" for number in range(earlier - EARLIER)]
    for number, name in enumerate(names, EARLIER):
        data.add(name, f"caption {number}", number)
    data.run.open(data.config)
    if earlier:
        data.encode()
        for number in range(earlier, earlier + 4):
            data.add(f"z{number}", f"caption {number}", number)
    kept, without_part = tmp_path / "kept", 0
    shutil.copytree(data.run.root, kept)
    for number in itertools.count(1):
        restored(data, kept)
        with monkeypatch.context() as patch:
            if not killed(data, patch, number):
                break
        if not data.cache.manifest.entries([CATALOG_TASK]):
            continue
        files = cache_files(data.run.cache)
        written = [task for task in data.cache.tasks() if task.inputs["file"] in files]
        without_part += len(data.cache.manifest.done(written)) < len(written)
        found = lcm("verify", "--run", data.run.root, "--json")
        verified, status = json.loads(found.stdout), shown(data)
        assert found.exit_code == 0 and verified["damage"] == [] and status["damaged"] == 0, (number, found.output)
        assert verified["pending"] == status["tasks"] - status["done"], number
    assert without_part >= 2 and data.is_sound()  # a caption's shard and an image's


@pytest.mark.parametrize("kind", ["caption", "image"])
def test_a_damaged_shard_that_has_still_to_grow_is_mended(data, monkeypatch, kind):
    data.encode()
    data.run.open(data.config)
    extended(data)
    with monkeypatch.context() as patch:
        assert killed(data, patch, COMMIT)
    (grows,) = (task for task in data.cache.tasks() if (task.inputs["kind"], task.inputs["shard"]) == (kind, 1))
    flip(data.run.cache / grows.inputs["file"], 5)
    found = json.loads(lcm("verify", "--run", data.run.root, "--json").stdout)
    assert {damage["task"] for damage in found["damage"]} == {grows.name} and found["pending"] == 2
    mended = lcm("verify", "--run", data.run.root, "--repair", "--json")
    assert mended.exit_code == 0 and json.loads(mended.stdout)["pending"] == 1, mended.output
    assert precompute(data).exit_code == 0 and data.is_sound()


def test_a_damaged_catalog_is_numbered_again_before_its_shards_have_grown(data, monkeypatch):
    """As the data set's order is that of the rows: what is new comes last."""
    data.encode()
    data.run.open(data.config)
    data.add("z", "a new caption", 7)
    with monkeypatch.context() as patch:
        assert killed(data, patch, LAST)
    (data.run.cache / "catalog/samples.parquet").unlink()
    mended = lcm("verify", "--run", data.run.root, "--repair", "--json")
    assert mended.exit_code == 0 and json.loads(mended.stdout)["pending"] == 2, mended.output
    assert precompute(data).exit_code == 0 and data.is_sound()


def killed_at_a_rename(number: int) -> None:
    """In a process of its own, with the encoders of the fixture."""
    encoding.ConfiguredEncoders = Means
    kill_at("rename", number, after=True)


def test_killed_by_the_kernel_while_the_catalog_is_replaced(data, tmp_path):
    """By SIGKILL, which runs no code of the process, at every rename until what was put aside is forgotten: seconds."""
    data.encode()
    data.run.open(data.config)
    kept = tmp_path / "kept"
    shutil.copytree(data.run.root, kept)
    extended(data)
    assert precompute(data).exit_code == 0
    whole, seen = tree(data.run.root), 0
    for number in range(1, 20):
        restored(data, kept)
        ended = lcm_alone("precompute", "--run", data.run.root, fault=partial(killed_at_a_rename, number))
        assert ended.code == -signal.SIGKILL, ended
        if any((data.run.cache / BEFORE).glob("*")):
            resumed = precompute(data)
            assert resumed.exit_code == 0 and differing(tree(data.run.root), whole) == [], (number, resumed.output)
            seen += 1
        elif seen:
            break
    assert seen == 5  # two put aside, two written, and their commit
