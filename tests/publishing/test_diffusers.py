"""A folder for diffusers generates the package's own images, opened where the package is not installed."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lcm_distill import assets
from lcm_distill.api import LatentConsistencyModel, open_model
from lcm_distill.config import load_preset
from lcm_distill.models.student_description import StudentSampling
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.publishing.diffusers_folder import write_diffusers
from lcm_distill.publishing.published_model import Published
from lcm_distill.stages import export as stage
from tests.command_line import lcm

OPEN = f"""
import runpy, sys
sys.modules["lcm_distill"] = None  # as if it were not installed
runpy.run_path({str(Path(__file__).with_name("open_folders.py"))!r}, run_name="__main__")
"""
PROMPTS = ["a large red circle in the centre on a navy background", "two small green stars &amp; a RED square", "zzz"]
SEEDS = [5, 6, 7]
HALF_A_GREY_LEVEL = 0.5 / 255

PHASED = {"phases": (80.0, 3.0, 0.4), "guidance_range": (1.0, 3.0)}
KEPT_NOISE = {"fresh_noise": False, "sigmas": {2: (80.0, 1.5)}}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """A run with the student that ships."""
    run = RunFolder(tmp_path_factory.mktemp("run"))
    run.open(load_preset("shapes"))
    run.student.write_bytes(assets.STUDENT.read_bytes())
    return run


@pytest.fixture(scope="module")
def published(run) -> dict[str, Published]:
    """The student and the teacher, as the stage publishes them."""
    models = dict[str, Published]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "write", lambda form, out, model, *_: models.update({out.name: model}) or {})
        config = load_preset("shapes")
        stage.export(config, run, "diffusers", Path("student"))
        stage.export_teacher(config, run, "diffusers", Path("teacher"))
    return models


@pytest.fixture(scope="module")
def folders(run, published, tmp_path_factory) -> dict[str, Path]:
    """Exported folders, with VAE and text encoder but for `lacking`."""
    root = tmp_path_factory.mktemp("folders")
    for role, options in {"student": [], "teacher": ["--teacher", assets.TEACHER]}.items():
        words = ["--run", run.root, "--format", "diffusers", "--with-encoders", "--out", root / role, *options]
        result = lcm("export", *words, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["file"] == str(root / role)
    assert lcm("export", "--run", run.root, "--format", "diffusers", "--out", root / "lacking").exit_code == 0
    for name, sampling in {"phased": PHASED, "kept": KEPT_NOISE}.items():
        (root / name).mkdir()
        changed = StudentSampling(**sampling)
        write_diffusers(root / name, replace(published["student"], sampling=changed), with_encoders=False)
    return {path.name: path for path in root.iterdir()}


def opened(jobs: list[dict], folder: Path) -> dict[int, torch.Tensor]:
    """Images of jobs by number, from a process of its own without the package and without network."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    homes = {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, folder / "jobs.json", folder / "images.npz"],
        env={**os.environ, **homes}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(folder / "images.npz") as images:
        return {int(number): torch.from_numpy(images[number]) for number in images.files}


def test_images_are_the_packages_own(folders, published, tmp_path):
    student, teacher = open_model("shapes"), open_model("shapes", "teacher")
    others = {
        name: LatentConsistencyModel(
            student.network, student.image_encoder, student.text_encoder, StudentSampling(**sampling)
        )
        for name, sampling in {"phased": PHASED, "kept": KEPT_NOISE}.items()
    }
    cases = [
        *(("student", student, steps, 2.0) for steps in range(1, 9)),
        ("student", student, 2, 1.0), ("student", student, None, 3.0), ("lacking", student, 2, 2.0),
        ("teacher", teacher, 1, 2.0), ("teacher", teacher, 4, 1.0), ("teacher", teacher, 4, 3.0),
        ("phased", others["phased"], 3, 2.0), ("kept", others["kept"], 2, 2.0), ("kept", others["kept"], 3, 1.0),
    ]  # fmt: skip
    jobs = [
        {
            "folder": str(folders[name]),
            "encoders": None if name in ("student", "teacher") else str(folders["student"]),
            "call": {"prompt": PROMPTS, "num_inference_steps": steps, "guidance_scale": guidance},
            "seeds": SEEDS,
        }
        for name, _, steps, guidance in cases
    ]
    checks = [{"folder": str(folders[name]), "check": f"check_{kind}"}
              for name, kind in (("student", "calls"), ("student", "modular"), ("student", "dtypes"),
                                 ("teacher", "calls"), ("teacher", "modular"), ("lacking", "lacking"),
                                 ("student", "warnings"), ("student", "saved"),
                                 ("student", "card"), ("lacking", "card"))]  # fmt: skip
    images = opened([*jobs, *checks], tmp_path)
    assert len(images) == len(cases)
    for number, (name, model, steps, guidance) in enumerate(cases):
        generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        own = model.generate(PROMPTS, steps, guidance, generator=generators)
        apart = float((images[number] - own).abs().max())
        assert apart < HALF_A_GREY_LEVEL, f"{name} in {steps} steps at {guidance}: {apart * 255:.2f} grey levels"
