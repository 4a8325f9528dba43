"""Training on a GPU: the bits of an interrupted one, its checkpoints, its losses beside a CPU's, and XL/2."""

import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lcm_distill.config import Config, load_preset
from lcm_distill.data.cache.loader import Batch
from lcm_distill.models.checkpoint import read_tensors
from lcm_distill.models.networks import build_network
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training import student as stage
from lcm_distill.training.checkpoints import Checkpoints
from lcm_distill.training.engine.world import init_world
from tests.command_line import settings
from tests.gpu.conftest import GPU, SETTINGS, borrow_cache, on_the_gpu, small
from tests.tensors import randomise

pytestmark = GPU

TOLERANCE = 3e-4
"""Ten times what losses of 20 steps change by when every output of every network is off by 1e-5 of itself, some eighty
roundings of float32. The order of sums alone changes them by 6e-6; a product in TF32 is off by up to 1e-3."""

LONG = ["distill.steps=16", "distill.checkpoint_every=4"]
DETERMINISTIC = (
    "import torch; torch.use_deterministic_algorithms(True, warn_only=True); from lcm_distill.cli import main; main()"
)
"""Attention's backward pass and sums at repeated indices add in any order unless this is asked for."""


def start(root: Path, assignments: list[str], **environment: str) -> subprocess.Popen[bytes]:
    """A training in a process of its own."""
    command = [sys.executable, "-c", DETERMINISTIC, "distill", *settings([*SETTINGS, *assignments]), "--run", str(root)]
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", **environment}
    with (root / "stderr.txt").open("ab") as stderr:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=environment)


def finish(run: RunFolder, settings: list[str], **environment: str) -> str:
    """The hash of the student that it ends with."""
    return student_of(run, start(run.root, settings, **environment))


def student_of(run: RunFolder, life: subprocess.Popen[bytes]) -> str:
    """The hash of the student that a training ends with."""
    assert life.wait(120) == 0, (run.root / "stderr.txt").read_text()[-4000:]
    return hashlib.sha256(run.student.read_bytes()).hexdigest()


def test_a_killed_training_goes_on_to_the_same_bits(cached, tmp_path):
    unbroken, broken, again = (borrow_cache(cached, tmp_path / name) for name in ("unbroken", "broken", "again"))
    whole, life, deadline = start(unbroken.root, LONG), start(broken.root, LONG), time.monotonic() + 120
    while not any(broken.distill.glob("checkpoints/step-*8/SHA256SUMS")):
        assert life.poll() is None and time.monotonic() < deadline, (broken.root / "stderr.txt").read_text()[-4000:]
        time.sleep(0.005)
    life.send_signal(signal.SIGKILL)
    life.wait()
    assert not broken.student.exists()
    ended, expected = finish(broken, LONG), student_of(unbroken, whole)
    if ended != expected:
        warned = (unbroken.root / "stderr.txt").read_text()[-2000:]
        pytest.fail(f"other bits; two unbroken trainings agree: {finish(again, LONG) == expected}; one said: {warned}")


def test_three_checkpoints_of_one_process(tmp_path):
    """Each holds what the GPU held when it was saved, though that changes at once."""
    with init_world(small().device, small().engine) as world:
        checkpoints = Checkpoints(tmp_path, "print", keep=3, background=True)
        tensors = {
            "weight": torch.zeros(2000, 1000, device=world.device),
            "moment": torch.zeros(1000, 64, device=world.device, dtype=torch.bfloat16),
            "step": torch.zeros(()),
        }
        for step in (1, 2, 3):
            for tensor in tensors.values():
                tensor.fill_(step)
            checkpoints.save(step, tensors)
            for tensor in tensors.values():
                tensor.fill_(100)
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2, 3]
        for step in (1, 2, 3):
            assert checkpoints.damage(step) is None
            checkpoints.load(step, tensors)
            assert all(bool((tensor == step).all()) for tensor in tensors.values()), step


def test_losses_are_those_of_a_cpu(cached, tmp_path):
    """In float32, products included."""
    losses = []
    for device in ("cpu", "auto"):
        run = borrow_cache(cached, tmp_path / device)
        finish(run, ["distill.steps=20", f"device={device}"], NVIDIA_TF32_OVERRIDE="0")
        losses.append(pq.read_table(run.distill / "events")["loss"].to_numpy())
    assert len(losses[1]) == 20
    np.testing.assert_allclose(losses[1], losses[0], rtol=TOLERANCE)


class RandomBatches:
    """Batches as a cache would give them, of normal latents and captions."""

    def __init__(self, config: Config, tokens: int) -> None:
        self.config, self.captions = config, SimpleNamespace(field=SimpleNamespace(shape=(tokens, 1024)))

    def __getitem__(self, step: int) -> Batch:
        model, size = self.config.model, self.config.distill.batch_size
        draw = torch.Generator().manual_seed(step)
        latents = torch.randn(size, model.in_channels, model.latent_size, model.latent_size, generator=draw)
        captions = torch.randn(size, self.captions.field.shape[0], model.caption_channels, generator=draw)
        return Batch(np.arange(size), np.arange(size), latents.half(), captions.half())


def test_a_step_of_xl(tmp_path, monkeypatch):
    """At 512 px, from a teacher with random weights."""
    teacher, data = tmp_path / "teacher.pt", f"data.root='{tmp_path}'"
    settings = ["distill.steps=2", "distill.batch_size=8", "engine.micro_batch=4", "engine.tensorboard=false"]
    settings += ["distill.warmup_steps=0", "engine.validate_every=1000", data, f"model.teacher='{teacher}'"]
    config = load_preset("microdit_xl_512", settings)
    with torch.device("cuda"):
        network = build_network(config.model, guidance_embedding=False)
        randomise(network)
    torch.save(network.state_dict(), teacher)
    name = "blocks.0.attn.qkv.weight"
    before = read_tensors(teacher)[name].clone()
    del network
    monkeypatch.setattr(stage, "open_batches", lambda *_: RandomBatches(config, 77))
    with init_world(config.device, config.engine) as world, on_the_gpu():
        training = stage.prepare(config, RunFolder(tmp_path / "run"), world)
        progress = training.run()
        (step,) = [report for report in [next(progress), next(progress)] if report.done == 1]
        progress.close()
        change = dict(training.model.named_parameters())[name].detach().cpu() - before
    loss, gradient_norm, memory_gib = (float(step.counts[name]) for name in ("loss", "gradient_norm", "memory_gib"))
    assert math.isfinite(loss) and 0 < gradient_norm < math.inf
    # Adam's first step moves every weight by the learning rate, unless its gradient is nearly nothing.
    assert 0.1 * config.distill.learning_rate < change.abs().mean() < 1.1 * config.distill.learning_rate
    assert memory_gib < 75
