"""Encoders with random weights are announced, marked, and not trained on by accident."""

import json

import pytest

from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import lcm, shapes
from tests.conftest import SMALL

RANDOM = shapes([*SMALL, "encoders.weights=random"])
ANNOUNCEMENT = "RANDOM WEIGHTS: encoders.weights = random; the cache serves to measure speed only"
STAND_INS = "shapes: stand-in data, VAE, text encoder, teacher; figures compare with each other only"


def weights_of(run: RunFolder) -> set[str]:
    return {json.loads(path.read_text())["attributes"]["weights"] for path in run.cache.glob("*/zarr.json")}


def test_a_random_cache_is_announced_marked_and_trained_on_only_if_asked(tmp_path):
    made = lcm("precompute", *RANDOM, "--run", tmp_path)
    assert made.exit_code == 0 and {ANNOUNCEMENT, STAND_INS} <= set(made.stderr.splitlines())
    assert weights_of(RunFolder(tmp_path)) == {"random"}
    refused = lcm("distill", "--run", tmp_path)
    assert refused.exit_code == 2 and "give --allow-random-weights" in refused.stderr.strip().splitlines()[-1]
    assert not RunFolder(tmp_path).distill.exists()
    assert lcm("distill", "--run", tmp_path, "--allow-random-weights").exit_code == 0
    assert lcm("evaluate", "--run", tmp_path).exit_code == 0


@pytest.mark.parametrize("command", ["run", "pretrain"])
def test_nothing_is_begun_that_would_be_refused_later(tmp_path, command):
    result = lcm(command, *RANDOM, "--run", tmp_path / "run")
    assert result.exit_code == 2 and "encoders.weights = 'random'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_pretrained_cache_is_marked(finished_run):
    assert weights_of(finished_run) == {"pretrained"}


def test_only_what_is_a_stand_in_is_called_one(tmp_path):
    result = lcm(
        "precompute",
        *shapes(["model.teacher=mine.pt", "encoders.vae=absent.safetensors", "data.images=8"]),
        "--run",
        tmp_path,
    )
    assert "shapes: stand-in data, text encoder; figures" in result.stderr and "RANDOM" not in result.stderr
