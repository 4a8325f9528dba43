"""One worker or several, killed or not: the same cache."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lcm_distill.config import load_preset
from lcm_distill.pipeline.executors.heartbeats import WorkerStatus, read_workers
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.shapes.dataset import annotations_path, write_images
from lcm_distill.stages.precompute import precompute
from lcm_distill.stages.status import status
from tests.command_line import PROCESS, shapes
from tests.files import shard_files

SETTINGS = ["data.source=journeydb", "data.resolutions=[64, 32]", "cache.shard_rows=16", "encoders.batch_size=8"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("journeydb")
    lines = [line for _, line in write_images(root, seed=0, count=160, width=64)]
    next((root / "data/train/imgs/000").glob("*.jpg")).write_bytes(b"not an image")
    annotations_path(root).write_text("\n".join(lines) + "\n")
    return root


def start(images: Path, run: Path, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    settings = shapes([*SETTINGS, f"data.root='{images}'"])
    command = [*PROCESS, "precompute", "--run", str(run)]
    return subprocess.Popen([*command, *settings, *options], env={**os.environ, **environment})


def process_of(worker: WorkerStatus) -> int:
    return int(worker.name.rsplit("-", 1)[1])


def shards(run: Path) -> dict[str, bytes]:
    return shard_files(run / "cache")


@pytest.fixture(scope="module")
def by_one(images, tmp_path_factory):
    run = tmp_path_factory.mktemp("one")
    assert start(images, run).wait() == 0
    return run


def test_launched_ranks_make_the_same_cache(images, by_one, tmp_path):
    ranks = [
        start(images, tmp_path, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="nobody")
        for rank in range(2)
    ]
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert shards(tmp_path) == shards(by_one)


def test_two_resolutions_are_made_in_one_pass_and_apart(images, by_one, tmp_path, monkeypatch):
    """Each resolution alone gives the latents it gives beside another one, and images are decoded once."""
    from lcm_distill.data.cache import image_shards

    decoded = []
    real = image_shards.decode
    monkeypatch.setattr(image_shards, "decode", lambda *arguments: decoded.append(1) or real(*arguments))
    both = load_preset("shapes", [*SETTINGS, f"data.root='{images}'"])
    list(precompute(both, RunFolder(tmp_path / "both")))
    assert len(decoded) == 160
    small = load_preset("shapes", [*SETTINGS, f"data.root='{images}'", "data.resolutions=[32]", "model.latent_size=4"])
    list(precompute(small, RunFolder(tmp_path / "small")))
    alone, beside = shards(tmp_path / "small"), shards(tmp_path / "both")
    assert {name for name in beside if name not in alone} == {f"latents_64/c/{n}/0/0/0" for n in range(10)}
    assert all(beside[name] == content for name, content in alone.items())


@pytest.mark.slow
def test_three_workers_killed_at_random_make_the_same_cache(images, by_one, tmp_path):
    """Workers are killed while the command runs, and the command itself now and then."""
    chance, lives = random.Random(1), 0
    while lives < 12:
        command = start(images, tmp_path, "--executor", "processes", "--workers", "3")
        while command.poll() is None:
            time.sleep(chance.uniform(2, 6))
            victims = [process_of(worker) for worker in read_workers(LocalStorage(tmp_path / "cache"))]
            if lives < 3 and chance.random() < 0.3:
                command.kill()
            elif victims and lives < 8:
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(victims), signal.SIGKILL)
            lives += 1
        if command.returncode == 0:
            break
    assert command.returncode == 0
    assert shards(tmp_path) == shards(by_one)
    config = load_preset("shapes", [*SETTINGS, f"data.root='{images}'"])
    figures = status(config, RunFolder(tmp_path))["precompute"]
    assert figures["done"] == figures["tasks"] and figures["failed"] == {} and figures["running"] == 0
