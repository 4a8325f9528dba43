"""Every key of the configuration, changed between two lives of a run: what its entry says is what happens."""

import os
import signal
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from PIL import Image

from lcm_distill import assets
from lcm_distill.config import load_file, load_preset
from lcm_distill.config.describe import describe
from lcm_distill.config.section import OnResume
from lcm_distill.models import read_tensors
from lcm_distill.models.checkpoint import read_description, serialise
from lcm_distill.models.student_description import read_student
from tests.faults.commands import Ended, lcm
from tests.faults.spoil import die_after_commits, die_after_step, surround
from tests.faults.trainings import TINY, copied, options
from tests.files import shard_files
from tests.ranks import assert_same_weights

WHERE = "{place}"
"""Stands for a folder with another run, `encoded`, another teacher, and prompts."""

CHANGED = {
    # First one of each kind, of quick stages, which `make test` tries.
    "encoders.batch_size": 3, "data.root": f"'{WHERE}/encoded/images'", "cache.location": "s3://bucket/keys",
    "engine.activation_checkpointing": "true",
    "preset": "original", "seed": 1, "device": "auto",
    "data.source": "folder", "data.archives": "'000'", "data.captions": "{prompt=1.0}",
    "data.captions_per_image": "all", "data.caption_suffixes": "['.txt']", "data.image_column": "path",
    "data.images": 25,
    "data.resolutions": "[64, 32]", "data.min_size": 32, "data.valid_fraction": 0.4,
    "encoders.vae": f"'{assets.VAE}'", "encoders.text": "'openclip:ViT-B-32'", "encoders.downsampling": 4,
    "encoders.weights": "random", "encoders.dtype": "bfloat16", "encoders.tiling": "true",
    "cache.shard_rows": 4, "cache.run": f"'{WHERE}/encoded'",
    "model.arch": "MicroDiT_Tiny_2", "model.latent_size": 4, "model.in_channels": 4, "model.caption_channels": 32,
    "model.pos_interp_scale": 2.0, "model.teacher": f"'{WHERE}/teacher.safetensors'",
    "diffusion.sigma_min": 0.003, "diffusion.sigma_max": 70.0, "diffusion.sigma_data": 0.8, "diffusion.rho": 6.0,
    "engine.precision": "bfloat16", "engine.sharding": "fsdp", "engine.micro_batch": 3,
    "engine.keep_checkpoints": 1, "engine.spike": 50.0, "engine.tensorboard": "true", "engine.wandb": "project",
    "engine.validate_every": 3, "engine.validation_images": 5,
    "pretrain.steps": 4, "pretrain.batch_size": 5, "pretrain.learning_rate": 1e-4, "pretrain.warmup_steps": 1,
    "pretrain.decay_fraction": 0.4, "pretrain.betas": "[0.8, 0.9]", "pretrain.weight_decay": 0.1,
    "pretrain.moments": "8bit", "pretrain.clip_norm": 2.0, "pretrain.ema_exponent": 2.0,
    "pretrain.checkpoint_every": 2, "pretrain.start": f"'{assets.TEACHER}'",
    "pretrain.caches": f"{{'{WHERE}/encoded'=0.5}}", "pretrain.mask_ratio": 0.5, "pretrain.decay": "cosine",
    "pretrain.decay_to": 0.1, "pretrain.sigma_mean": 0.1, "pretrain.sigma_std": 1.0, "pretrain.caption_drop": 0.5,
    "distill.steps": 5, "distill.batch_size": 5, "distill.learning_rate": 1e-4, "distill.warmup_steps": 1,
    "distill.decay_fraction": 0.4, "distill.betas": "[0.8, 0.9]", "distill.weight_decay": 0.1,
    "distill.moments": "8bit", "distill.clip_norm": 2.0, "distill.ema_exponent": 2.0, "distill.checkpoint_every": 3,
    "distill.seed": 1, "distill.objective": "discrete", "distill.solver": "euler", "distill.distance": "l2",
    "distill.huber": 0.1, "distill.target_decay": 0.9, "distill.guidance_range": "[1.0, 2.0]",
    "distill.guidance_embedder": "random", "distill.sigma_distribution": "uniform", "distill.sigma_mean": 0.1,
    "distill.sigma_std": 1.0, "distill.sigma_max_share": 0.2, "distill.publish": "raw",
    "distill.discrete.points": 30, "distill.discrete.skip": 2, "distill.tuning.gap_ratio": 0.6,
    "distill.tuning.halvings": 2, "distill.tuning.widening": 1.0, "distill.tuning.snap_below": 0.03,
    "distill.tuning.weighting": "inverse_gap", "distill.scm.normalisation": 0.2, "distill.scm.warmup": 0.4,
    "distill.phased.edges": "[3.0, 1.0]", "distill.phased.gap_ratio": 0.5, "distill.matching.weight": 1.0,
    "distill.matching.start": 0.2, "distill.matching.guidance_share": 0.4, "distill.matching.critic_rate": 2.0,
    "distill.matching.sigmas": "[80.0, 4.0]", "distill.matching.sigma_mean": 0.1, "distill.matching.sigma_std": 1.0,
    "distill.adversarial.weight": 0.2, "distill.adversarial.start": 0.2,
    "distill.adversarial.discriminator_rate": 2.0, "distill.adversarial.sigma_mean": 0.1,
    "distill.adversarial.sigma_std": 0.5,
    "distill.matching.guidance_less": 0.3, "distill.matching.shared_noise": "false", "distill.fresh_noise": "false",
    "distill.response.weight": 1.0, "distill.response.every": 2, "distill.response.sigmas": "[80.0, 5.0, 1.0]",
    "distill.lora.rank": 2, "distill.lora.alpha": 32.0,
    "schedule.steps": "[2]", "schedule.samples": 9, "schedule.sigmas": "{1=[70.0]}",
    "evaluate.prompts": f"'{WHERE}/prompts.txt'", "evaluate.images": 5, "evaluate.models": "['student']",
    "evaluate.guidance": "[1.5]", "evaluate.teacher": "[['heun', 2]]", "evaluate.student_steps": "[2]",
    "evaluate.student_sigmas": "{3=[80.0, 2.0, 1.0]}", "evaluate.student_sampler": "original",
    "evaluate.seed": 1, "evaluate.same_noise": "true",
    "evaluate.protocols": "[]", "evaluate.reference": f"{{shapes='{WHERE}/encoded/images'}}",
    "evaluate.weights": f"{{shapes='{assets.FEATURES}'}}", "evaluate.dtype": "bfloat16", "evaluate.batch_size": 1,
    "evaluate.shard_images": 4,
}  # fmt: skip
"""Another value of every key, as `--set` takes it."""

WITH = {
    "evaluate.prompts": [f"evaluate.reference={{shapes='{WHERE}/encoded/images'}}"],
}
"""What another value needs beside it."""

STAGES = {
    "encoders": "precompute", "cache": "precompute", "data": "precompute", "pretrain": "pretrain",
    "schedule": "schedule", "evaluate": "evaluate",
}  # fmt: skip
"""The stage that a section's keys are tried on; others are on `distill`."""

MOVING = ("seconds_per_image", "time", "checkpoint", "commit", "config_fingerprint")


def test_every_key_is_tried():
    keys = [key.name for key in describe(load_preset("shapes", TINY))]
    assert len(keys) >= 45 and sorted(CHANGED) == sorted(keys)


class Runs:
    """Runs that were killed in the middle of a stage, and what they end with if nothing is changed."""

    def __init__(self, place: Path, variables: dict[str, str]) -> None:
        self.place, self.around = place, partial(surround, variables)
        self.killed, self.done = cache(self._killed), cache(self._done)

    def _killed(self, stage: str) -> Path:
        """A run that was killed in a stage."""
        if stage == "precompute":
            run, chosen = self.place / "killed-precompute", ["--preset", "shapes", *options(TINY)]
        else:
            before = {"distill": "precompute", "pretrain": "precompute"}.get(stage, "distill")
            run, chosen = copied(self.done(before), self.place / f"killed-{stage}"), list[str]()
        steps = {"distill": partial(die_after_step, 2), "pretrain": partial(die_after_step, 1)}
        commits = {"precompute": 4, "evaluate": 2, "schedule": 1}
        fault = steps.get(stage) or partial(die_after_commits, commits[stage])
        assert lcm(stage, *chosen, "--run", run, fault=fault).code == -signal.SIGKILL
        return run

    def _done(self, stage: str) -> Path:
        """The same run, finished."""
        run = copied(self.killed(stage), self.place / f"done-{stage}")
        assert lcm(stage, "--run", run).is_clean(0)
        if stage == "precompute":
            captions = pq.read_table(run / "cache/catalog/captions.parquet")["caption"].to_pylist()
            (self.place / "prompts.txt").write_text("\n".join(captions[:6]))
            copied(run, self.place / "encoded")
            other = {name: 0.9 * tensor for name, tensor in read_tensors(assets.TEACHER).items()}
            (self.place / "teacher.safetensors").write_bytes(serialise(other, read_description(assets.TEACHER)))
        return run

    def given(self, run: Path, stage: str, key: str) -> Ended:
        """How the stage ends with a key changed."""
        self.done("precompute")
        settings = [f"{key}={CHANGED[key]}", *WITH.get(key, [])]
        return lcm(stage, "--run", run, *options(setting.replace(WHERE, str(self.place)) for setting in settings),
                   fault=self.around)  # fmt: skip


def outcome(run: Path, stage: str) -> dict[str, Any]:
    """Everything that a stage leaves and that must not depend on how it was interrupted."""
    if stage == "precompute":
        return dict(shard_files(run / "cache"))
    if stage in ("distill", "pretrain"):
        return {name: (run / name).read_bytes() for name in ("student.safetensors", "teacher.safetensors")
                if (run / name).exists()}  # fmt: skip
    if stage == "schedule":
        return {"student": (run / "student.safetensors").read_bytes()}
    images = {f"{path.parts[-3]}/{path.name}": path.read_bytes() for path in run.glob("evaluate/*/*/*.png")}
    rows = pq.read_table(run / "metrics.parquet").drop_columns(list(MOVING)).to_pylist()
    counted = sum(pq.read_metadata(path).num_rows for path in run.glob("evaluate/*/manifest/*.parquet"))
    assert counted == len(images)  # none is counted twice
    return {**images, "metrics": rows}


def tree(run: Path) -> dict[str, bytes]:
    """All files but logs, signs of life, locks of the dead and what a killed writer left."""
    files = (path for path in run.rglob("*") if path.is_file() and ".writing-" not in str(path))
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in files
        if not {"logs", "workers", "locks"} & {*path.parts}
    }


def same(runs: Runs, run: Path, stage: str, key: str, ended: Ended) -> None:
    assert ended.is_clean(0), ended
    assert outcome(run, stage) == outcome(runs.done(stage), stage), key


def agrees(runs: Runs, run: Path, stage: str, key: str, ended: Ended) -> None:
    assert ended.is_clean(0), ended
    ours, theirs = outcome(run, stage), outcome(runs.done(stage), stage)
    assert ours.keys() == theirs.keys()
    for name in ours:
        if stage == "precompute":
            field = name.partition("/")[0]
            places = [at / "cache" / field for at in (run, runs.done(stage))]
            rows, others = (np.asarray(zarr.open_array(place, mode="r")[:]) for place in places)
            np.testing.assert_allclose(rows, others, rtol=2**-9, atol=2**-9, err_msg=f"{key}, {field}")
        elif name.endswith(".safetensors"):
            assert_same_weights(read_tensors(run / name), read_tensors(runs.done(stage) / name))
        elif name.endswith(".png"):
            one, other = (np.asarray(Image.open(BytesIO(content[name]))).astype(int) for content in (ours, theirs))
            assert abs(one - other).max() <= 1, (key, name)
        else:
            values = [[row.pop("value") for row in rows] for rows in (ours[name], theirs[name])]
            assert ours[name] == theirs[name] and values[0] == pytest.approx(values[1], rel=1e-3), key


def refused(runs: Runs, run: Path, stage: str, key: str, ended: Ended) -> None:
    assert ended.is_clean(2), ended
    assert tree(run) == tree(runs.killed(stage)), key  # so that the plain command goes on as if nothing had been asked


def makes_new_work(runs: Runs, run: Path, stage: str, key: str, ended: Ended) -> None:
    assert ended.is_clean(0), ended
    stored, before = load_file(run / "config.toml"), load_file(runs.killed(stage) / "config.toml")
    assert stored != before
    made = {"evaluate": "evaluate/", "precompute": "cache/", "schedule": "cache/"}[stage]
    kept = {name: content for name, content in tree(runs.killed(stage)).items() if name.startswith(made)}
    assert kept.items() <= tree(run).items(), key
    if stage == "schedule":
        student = read_student(run / "student.safetensors")
        assert student is not None and student.sigmas.keys() >= set(stored.schedule.steps)


CHECKS: dict[OnResume, Callable[[Runs, Path, str, str, Ended], None]] = {
    OnResume.SAME: same,
    OnResume.ROUNDING: agrees,
    OnResume.REFUSED: refused,
    OnResume.CONTINUED: refused,  # as it is not finished
    OnResume.NEW_WORK: makes_new_work,
}

COUNTED = {
    OnResume.SAME: "with the same bits",
    OnResume.ROUNDING: "the same up to rounding",
    OnResume.REFUSED: "refused",
    OnResume.CONTINUED: "refused",
    OnResume.NEW_WORK: "new work",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, bucket):
    names = ("AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    return Runs(tmp_path_factory.mktemp("keys"), {name: os.environ[name] for name in names})


@pytest.mark.trials(full=len(CHANGED), sample=4)
def test_keys(trials, runs, tmp_path):
    """Every key of the configuration, changed before a killed run is resumed."""
    says = {key.name: key.on_resume for key in describe(load_preset("shapes", TINY))}
    for trial in trials:
        key = list(CHANGED)[trial]
        stage = STAGES.get(key.partition(".")[0], "distill")
        run = copied(runs.killed(stage), tmp_path / "run")
        CHECKS[says[key]](runs, run, stage, key, runs.given(run, stage, key))
        trials.count(COUNTED[says[key]])
