# torch.distributed does not declare its stores as exported.
# pyright: reportPrivateImportUsage=false
"""A resumed training ends with the same bits, and any number of ranks has the same losses."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from lcm_distill.config import Config, load_preset
from lcm_distill.core.hashing import digest
from lcm_distill.models import VARIANTS, Variant, build, read_tensors
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.distill import distill
from lcm_distill.training import checkpoints as checkpoints_module
from lcm_distill.training.checkpoints import Checkpoints
from lcm_distill.training.student import prepare
from tests.conftest import SMALL
from tests.ranks import assert_same_weights, finish, start
from tests.tensors import randomise

VARIANTS["MicroDiT_Test"] = Variant(
    dim=64, depth=2, head_dim=32, mixer_dim=64, mixer_depth=1, experts_every=1, multiple_of=32, mixer_mlp_ratio=1.0,
    mlp_ratios=(0.5, 1.0), experts=4,
)  # fmt: skip
TINY = [
    *SMALL, "model.arch=MicroDiT_Test", "distill.steps=60", "distill.checkpoint_every=20", "distill.batch_size=6",
    "distill.solver=euler", "engine.tensorboard=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(finished_run, tmp_path_factory) -> Path:
    """A folder for trainings, with their teacher and cache."""
    root = tmp_path_factory.mktemp("trainings")
    torch.manual_seed(0)
    network = build("MicroDiT_Test", 8, 64, in_channels=8)
    randomise(network, vectors=0.02)
    save_file(network.state_dict(), root / "teacher.safetensors")
    (root / "cache").symlink_to(finished_run.cache)
    return root


def open_run(place: Path, name: str, settings: list[str]) -> tuple[Config, RunFolder]:
    config = load_preset("shapes", [*TINY, f"model.teacher='{place / 'teacher.safetensors'}'", *settings])
    run = RunFolder(place / name)
    run.cache = place / "cache"
    return config, run


KILLED = -signal.SIGKILL


def train(place: Path, name: str, settings: list[str], killed_at: int | None = None) -> None:
    """Train in this process, which kills itself after a step if one is given."""
    config, run = open_run(place, name, settings)
    run.open(config)
    for report in distill(config, run):
        if report.done == killed_at:
            wait_for_all_ranks(place / f"{name}-{killed_at}")
            os.kill(os.getpid(), signal.SIGKILL)


def wait_for_all_ranks(folder: Path) -> None:
    """Until every rank is here: a rank that is killed earlier could break another one's last exchange."""
    folder.mkdir(exist_ok=True)
    (folder / os.environ["RANK"]).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < int(os.environ["WORLD_SIZE"]):
        assert time.monotonic() < deadline, "another rank did not come as far as this"
        time.sleep(0.01)


def losses(root: Path, *columns: str) -> np.ndarray:
    """The losses of all steps, or other records of theirs."""
    rows = [row for path in sorted((root / "distill/events").glob("*")) for row in pq.read_table(path).to_pylist()]
    assert [row["step"] for row in rows] == list(range(len(rows)))
    return np.array([[row[name] for name in columns] if columns else row["loss"] for row in rows], dtype=float)


def everything(place: Path, name: str) -> dict[str, torch.Tensor]:
    """All tensors of a training's last checkpoint."""
    trainer = prepare(*open_run(place, name, []))
    assert trainer.checkpoints.load_latest(trainer.tensors) == 60
    return trainer.tensors()


def test_killed_at_23_and_41_of_60_steps_it_ends_with_the_same_bits(place):
    unbroken = start(1, train, place, "unbroken", [])
    for killed_at in (23, 41):
        assert finish(start(1, train, place, "broken", [], killed_at)) == [KILLED]
        assert not (place / "broken/student.safetensors").exists()
    assert finish(start(1, train, place, "broken", [])) + finish(unbroken) == [0, 0]
    one, other = everything(place, "unbroken"), everything(place, "broken")
    assert one.keys() == other.keys()
    assert {name.split(".")[0] for name in one} == {"model", "average", "target", "optimiser"}
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert np.array_equal(losses(place / "unbroken"), losses(place / "broken"))


def interrupt_while_a_checkpoint_is_written(place: Path, name: str) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    config, run = open_run(place, name, [])
    run.open(config)
    trainer = prepare(config, run)
    old = trainer.checkpoints
    trainer.checkpoints = Checkpoints(old.folder, old.fingerprint, background=True)
    commit, close, may_write = checkpoints_module.commit_folder, trainer.checkpoints.close, threading.Event()
    checkpoints_module.commit_folder = lambda *arguments: (
        may_write.wait(60) and commit(*arguments)
    )  # until the test ends

    def close_at_last() -> None:
        may_write.set()
        close()

    steps = trainer.run()
    with pytest.raises(KeyboardInterrupt):
        for report in steps:
            if report.done == 21:
                assert trainer.checkpoints.steps() == []
                trainer.checkpoints.close = close_at_last
                steps.throw(KeyboardInterrupt)
    assert trainer.checkpoints.steps() == [20]


def test_an_interrupted_training_finishes_the_checkpoint_it_writes(place):
    assert finish(start(1, interrupt_while_a_checkpoint_is_written, place, "interrupted")) == [0]


FIFTY = ["distill.steps=50", "distill.checkpoint_every=25"]


@pytest.fixture(scope="module")
def by_one(place) -> np.ndarray:
    """Losses of one process."""
    assert finish(start(1, train, place, "one", FIFTY)) == [0]
    return losses(place / "one")


def agree(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return len(ours) == len(theirs) == 50 and bool(np.allclose(ours, theirs, rtol=1e-5, atol=0))


def test_passes_change_rounding_alone(place, by_one):
    assert finish(start(1, train, place, "passes", [*FIFTY, "engine.micro_batch=4"])) == [0]
    assert agree(losses(place / "passes"), by_one)


@pytest.mark.parametrize(("ranks", "settings"), [(2, []), (3, ["engine.micro_batch=1"])])
def test_ranks_agree(place, by_one, ranks, settings):
    name = f"{ranks}-ranks"
    assert finish(start(ranks, train, place, name, [*FIFTY, *settings])) == [0] * ranks
    assert agree(losses(place / name), by_one)


LOW = [*FIFTY, "distill.steps=4", "distill.checkpoint_every=4", "engine.precision=bfloat16"]


@pytest.fixture(scope="module")
def by_one_in_bfloat16(place) -> np.ndarray:
    """Losses of one process."""
    assert finish(start(1, train, place, "one-low", LOW)) == [0]
    return losses(place / "one-low")


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_ranks_agree_in_bfloat16(place, by_one_in_bfloat16, sharding):
    settings = [*LOW, f"engine.sharding={sharding}", "engine.activation_checkpointing=true"]
    assert finish(start(2, train, place, f"low-{sharding}", settings)) == [0, 0]
    np.testing.assert_allclose(losses(place / f"low-{sharding}"), by_one_in_bfloat16, rtol=0.02)


def test_ranks_and_sharding_may_change_on_resume(place, by_one):
    fsdp = ["engine.sharding=fsdp", "engine.activation_checkpointing=true"]
    for ranks, settings, killed_at in [(3, [], 22), (2, fsdp, 26), (1, [], None)]:
        lives = start(ranks, train, place, "changing", [*FIFTY, "distill.checkpoint_every=5", *settings], killed_at)
        assert finish(lives) == [KILLED if killed_at else 0] * ranks
    assert agree(losses(place / "changing"), by_one)
    assert {path.name for path in (place / "changing/distill/events").iterdir()} >= {"from-0000020.parquet"}


LORA = ["distill.lora.rank=2", "distill.lora.alpha=4"]
ADVERSARIAL = [
    "distill.matching.weight=1", "distill.matching.start=0.25", "distill.adversarial.weight=0.1",
    "distill.adversarial.start=0.25", "distill.adversarial.discriminator_rate=1",
]  # fmt: skip
"""At its usual rate a discriminator makes much of the rounding of its first gradients, which nearly cancel."""
HEALTH = ("critic_error", "logit_margin", "objective_gradient", "matching_gradient", "adversarial_gradient")
"""Figures that no division into passes changes."""


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [
        (2, LORA),
        (2, [*LORA, "engine.sharding=fsdp"]),
        (2, ADVERSARIAL),
        (2, [*ADVERSARIAL, "engine.sharding=fsdp", "engine.activation_checkpointing=true"]),
    ],
)
def test_adapters_critics_and_discriminators_are_trained_by_ranks_as_by_one(place, ranks, settings):
    short = ["distill.steps=8", "distill.checkpoint_every=4", *settings]
    names = [f"{ranks}-{digest(settings)}", f"1-{digest(settings)}"]
    lives = start(ranks, train, place, names[0], short)
    unsharded = [setting for setting in short if not setting.startswith("engine")]
    assert finish(lives) + finish(start(1, train, place, names[1], unsharded)) == [0] * (ranks + 1)
    np.testing.assert_allclose(losses(place / names[0]), losses(place / names[1]), rtol=1e-4, atol=0)
    if settings[0] == ADVERSARIAL[0]:
        ours, theirs = (losses(place / name, *HEALTH) for name in names)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
        assert np.isfinite(ours[2:]).all() and np.allclose(ours[2:, 2:].sum(axis=1), 1)
    files = ["student.safetensors", *(["adapter/adapter_model.safetensors"] if settings[0] == LORA[0] else [])]
    for file in files:
        assert_same_weights(*(read_tensors(place / name / file) for name in names))


def test_moments_in_8_bit_learn_as_whole_ones_and_resume_to_the_same_bits(place):
    settings = ["distill.steps=12", "distill.checkpoint_every=6"]
    eight = [*settings, "distill.moments=8bit"]
    with torch.compiler.set_stance("force_eager"):
        for name, chosen in [("float32", settings), ("8bit", eight)]:
            for _ in (trainer := prepare(*open_run(place, f"moments-{name}", chosen))).run():
                pass
            moments = {type(state["exp_avg"]).__name__ for state in trainer.optimiser.state.values()}
            assert moments == {"float32": {"Tensor"}, "8bit": {"Tensor", "OptimState8bit"}}[name]
        for last in (8, 12):
            for report in prepare(*open_run(place, "moments-broken", eight)).run():
                if report.done == last:
                    break
        one, other, exact = (
            prepare(*open_run(place, f"moments-{name}", chosen))
            for name, chosen in [("8bit", eight), ("broken", eight), ("float32", settings)]
        )
        initial = torch.nn.utils.parameters_to_vector(exact.model.parameters())
        for training in (one, other, exact):
            assert training.checkpoints.load_latest(training.tensors) == 12
    learnt, again, exactly = (
        torch.nn.utils.parameters_to_vector(training.model.parameters()) for training in (one, other, exact)
    )
    assert torch.equal(learnt, again)
    assert 0 < (learnt - exactly).norm() < 0.25 * (exactly - initial).norm()
