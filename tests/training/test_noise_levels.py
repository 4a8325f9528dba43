"""Noise levels for which nothing would be learnt are refused before a training, and nowhere else."""

import pytest

from lcm_distill.config import load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages import distill, pretrain
from lcm_distill.stages.stage import missing

RANGE = "must fall, and lie between diffusion.sigma_max 80.0 and diffusion.sigma_min 0.002"
MEAN = "must be the ln of a sigma between diffusion.sigma_min and diffusion.sigma_max, -6.2 to 4.4"


@pytest.mark.parametrize(
    ("stage", "assignment", "message"),
    [
        (distill, "distill.matching.sigmas=[2,80]", f"distill.matching.sigmas = [2.0, 80.0] {RANGE}"),
        (distill, "distill.matching.sigmas=[80,0.001]", f"distill.matching.sigmas = [80.0, 0.001] {RANGE}"),
        (distill, "distill.matching.sigmas=[1000,2]", f"distill.matching.sigmas = [1000.0, 2.0] {RANGE}"),
        (distill, "distill.response={weight=1, sigmas=[9, 10, 5]}",
         f"distill.response.sigmas = [9.0, 10.0, 5.0] {RANGE}"),
        (distill, "distill.sigma_mean=4.4", f"distill.sigma_mean = 4.4 {MEAN}"),
        (distill, "distill.matching.sigma_mean=1000", f"distill.matching.sigma_mean = 1000 {MEAN}"),
        (distill, "distill.adversarial.sigma_mean=-7", f"distill.adversarial.sigma_mean = -7 {MEAN}"),
        (distill, "distill.tuning.snap_below=100",
         "distill.tuning.snap_below = 100.0 must lie below diffusion.sigma_max 80.0"),
        (pretrain, "pretrain.sigma_mean=5", f"pretrain.sigma_mean = 5 {MEAN}"),
    ],
)  # fmt: skip
def test_levels_outside_of_the_range(tmp_path, stage, assignment, message):
    config, run = load_preset("shapes", [assignment]), RunFolder(tmp_path)
    assert missing(stage.STAGE, config, run, ["precompute"]) == [message]


def test_what_is_switched_off_may_lie_outside(tmp_path):
    off = ["distill.matching.weight=0", "distill.adversarial.weight=0", "distill.matching.sigmas=[1000, 2]"]
    assert missing(distill.STAGE, load_preset("shapes", off), RunFolder(tmp_path), ["precompute"]) == []
