"""What `lcm precompute` says about the teacher that a cache will be distilled from."""

import json
from pathlib import Path

import pytest
import torch

from lcm_distill import assets
from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.data.teacher_fit import fitting_teacher, require_fitting_teacher, strange_teacher, student_remedy
from lcm_distill.models.checkpoint import serialise
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages import distill, evaluate, schedule
from lcm_distill.stages.stage import missing
from tests.command_line import lcm
from tests.foreign import Zeros, image_bytes

OWN = ["data.source=folder", "data.root=images"]
SHAPES = "latents of shapes at 64 px and captions as shapes embeds them"


def said(*assignments: str, preset: str = "shapes") -> str:
    return fitting_teacher(load_preset(preset, assignments), RunFolder(Path("runs/mine")))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_teacher_that_ships_fits_generated_images_alone():
    assert said() == "shapes, which ships and was trained on such images"
    assert strange_teacher(load_preset("shapes"), RunFolder(Path("runs/mine"))) is None
    assert said(*OWN) == (
        "shapes, which ships, knows nothing of these images: run `lcm pretrain --run runs/mine` and set model.teacher="
        f"runs/mine/teacher.safetensors, or set model.teacher to a checkpoint that was trained on {SHAPES}"
    )
    assert said("encoders.weights=random").startswith("shapes, which ships, was trained with other encoders: ")
    other = said("data.resolutions=[128]", "model.latent_size=16")
    assert other.startswith("shapes has latent_size 8, not 16: run `lcm pretrain") and "at 128 px" in other


def test_a_teacher_of_the_run_fits_once_it_is_trained(here):
    own = here / "runs" / "mine" / "teacher.safetensors"
    own.parent.mkdir(parents=True)
    own.write_bytes(assets.TEACHER.read_bytes())
    assert said(*OWN).endswith("set model.teacher=runs/mine/teacher.safetensors, which this run has trained")
    chosen = "model.teacher=runs/mine/teacher.safetensors"
    assert said(*OWN, chosen) == "runs/mine/teacher.safetensors, which this run has trained"
    own.write_bytes(b"damaged")
    assert said(*OWN, chosen).startswith("runs/mine/teacher.safetensors cannot be read: ")


@pytest.mark.parametrize("stage", [distill.STAGE, evaluate.STAGE, schedule.STAGE], ids=lambda stage: stage.name)
def test_every_stage_says_the_same_of_a_teacher_that_is_missing(stage):
    gone = "model.teacher=gone.safetensors"
    assert said(gone) == (
        "gone.safetensors is missing: run `lcm pretrain --run runs/mine` and set "
        "model.teacher=runs/mine/teacher.safetensors, or set model.teacher to a checkpoint that was trained on "
        f"{SHAPES}"
    )
    lacks = missing(stage, load_preset("shapes", [gone]), RunFolder(Path("runs/mine")), ["precompute"])
    (told,) = [line for line in lacks if "gone" in line]
    assert told.removesuffix(", or generate with evaluate.models=['student']") == said(gone)


def test_a_teacher_from_elsewhere_fits_if_it_was_trained_so(here):
    (here / "t.safetensors").write_bytes(serialise({"x": torch.zeros(1)}, {"role": "teacher"}))
    assert said("model.teacher=t.safetensors") == f"t.safetensors, if it was trained on {SHAPES}"
    absent = said(preset="microdit_xl_512")
    assert absent.startswith("dit_4_channel_37M_real_and_synthetic_data.pt is missing: run `lcm pretrain --run ")
    assert "stabilityai/stable-diffusion-xl-base-1.0 at 512 px" in absent
    assert "pretrain" not in said(preset="original")


def test_the_command_line_says_so_before_and_after(here, monkeypatch):
    monkeypatch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", Zeros)
    (here / "images").mkdir()
    for n in range(4):
        (here / "images" / f"{n}.jpg").write_bytes(image_bytes(n))
        (here / "images" / f"{n}.txt").write_text(f"caption {n}")
    options = ["--preset", "shapes", "--run", "run", "--set", OWN[0], "--set", OWN[1], "--json"]
    plan = json.loads(lcm("precompute", *options, "--dry-run").stdout)["precompute"]["fitting_teacher"]
    result = json.loads(lcm("precompute", *options).stdout)["fitting_teacher"]
    assert plan == result and plan.startswith("shapes, which ships, knows nothing of these images: run `lcm pretrain")
    printed = " ".join(lcm("precompute", *options[:-1], "--dry-run").stdout.split())
    assert "fitting teacher" in printed
    for command, *more in (["distill"], ["run"], ["ablate", "--only", "default", "--seeds", "1"]):
        dry = lcm(command, *more, "--run", "run", "--dry-run")
        assert "knows nothing of these images" in " ".join(dry.stdout.split()), command
        refused = lcm(command, *more, "--run", "run")
        assert refused.exit_code == 2 and f"teacher {plan}" in refused.stderr, command
    assert not (here / "run" / "distill").exists()


def test_a_teacher_that_ships_trains_no_student_of_other_images(here):
    run = RunFolder(Path("runs/mine"))
    config = load_preset("shapes", OWN)
    with pytest.raises(UserError, match="teacher shapes, which ships, knows nothing of these images: run `lcm pretr"):
        list(distill.distill(config, run))
    require_fitting_teacher(load_preset("shapes"), run)
    require_fitting_teacher(load_preset("shapes", [*OWN, f"model.teacher='{assets.TEACHER}'"]), run)
    require_fitting_teacher(load_preset("shapes", [*OWN, "encoders.weights=random"]), run)


def test_a_shared_cache_is_named_and_the_teacher_of_its_run(here):
    mine, owner = RunFolder(Path("runs/mine")), RunFolder(here / "runs" / "owner")
    config = load_preset("shapes", [*OWN, f"cache.run='{owner.root}'"])
    assert f"run `lcm pretrain --run runs/mine --cache {owner.root}` and" in fitting_teacher(config, mine)
    with pytest.raises(UserError, match=f"; where it does know them, set model.teacher={assets.TEACHER}$"):
        require_fitting_teacher(config, mine)
    owner.root.mkdir(parents=True)
    owner.teacher.write_bytes(b"a teacher")
    assert f"set model.teacher={owner.teacher}, which was trained on this cache" in fitting_teacher(config, mine)


def test_what_lacks_a_student_names_the_teacher_that_it_lacks_first(here):
    run = RunFolder(Path("runs/mine"))
    run.open(config := load_preset("shapes", OWN))
    assert student_remedy(load_preset("shapes"), run) == "run `lcm distill --run runs/mine` first"
    distilled = "`lcm distill --run runs/mine --set model.teacher=runs/mine/teacher.safetensors` first"
    assert student_remedy(config, run) == f"run `lcm pretrain --run runs/mine` and {distilled}"
    sampled = lcm("sample", "a dog", "--run", "runs/mine")
    assert sampled.exit_code == 2 and sampled.stderr.endswith(f"run `lcm pretrain --run runs/mine` and {distilled}\n")
    assert any(line.endswith(distilled) for line in missing(evaluate.STAGE, config, run, []))
    run.teacher.write_bytes(b"trained")
    assert student_remedy(config, run) == f"run {distilled}"
