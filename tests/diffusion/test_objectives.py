"""What holds for every objective a configuration can choose."""

import pytest
import torch

from lcm_distill.config import load_preset
from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.preconditioning import consistency_function, edm_denoiser
from lcm_distill.training.objective_registry import build_objective
from tests.diffusion.gaussian import SIGMA_DATA, SIGMA_MIN, Linear, losses, noise

CHOICES = ["tuning", "discrete", "scm", "phased"]


def chosen(objective: str, *assignments: str):
    steps = ["evaluate.student_steps=[4]"] if objective == "phased" else []
    config = load_preset("shapes", [f"distill.objective={objective}", *steps, *assignments])
    return build_objective(config.distill, config.diffusion)


def losses_of(objective, networks: tuple[Linear, Linear, Linear], progress: float = 0.5) -> torch.Tensor:
    student, target, teacher = networks
    captions = torch.ones(4, 3, 4, dtype=torch.float64)
    functions = Networks(
        consistency_function(student, SIGMA_DATA, SIGMA_MIN, captions, None),
        consistency_function(target, SIGMA_DATA, SIGMA_MIN, captions, None),
        edm_denoiser(teacher, SIGMA_DATA, captions),
    )
    return losses(objective, functions, progress)


@pytest.mark.parametrize("name", CHOICES)
def test_gradient_reaches_the_student_only(name):
    student, target, teacher = networks = Linear(0.3), Linear(0.1), Linear(0.2)
    loss = losses_of(chosen(name), networks)
    assert loss.shape == (4,) and loss.dtype == torch.float64
    loss.sum().backward()
    assert student.gain.grad is not None and student.gain.grad.abs() > 1e-3
    assert target.gain.grad is None and teacher.gain.grad is None


@pytest.mark.parametrize("name", CHOICES)
def test_target_is_called_by_objectives_that_use_it(name):
    objective = chosen(name)
    near, far = (losses_of(objective, (Linear(0.3), Linear(gain), Linear(0.2))) for gain in (0.1, 0.5))
    assert torch.equal(near, far) != objective.uses_target


@pytest.mark.parametrize("name", CHOICES)
def test_student_can_be_its_own_target(name):
    student = Linear(0.3)
    itself, copy = (losses_of(chosen(name), (student, target, Linear(0.2))) for target in (student, Linear(0.3)))
    assert torch.equal(itself, copy)


@pytest.mark.parametrize(
    ("name", "assignment"),
    [
        *((name, assignment) for name in ("tuning", "discrete", "phased") for assignment in
          ("distill.solver=euler", "distill.distance=l2", "distill.huber=0.1")),
        ("tuning", "distill.tuning.gap_ratio=0.6"),
        ("tuning", "distill.tuning.halvings=0"),
        ("tuning", "distill.tuning.widening=2"),
        ("tuning", "distill.tuning.snap_below=1.0"),
        ("tuning", "distill.tuning.weighting=inverse_gap"),
        ("discrete", "distill.discrete.points=20"),
        ("discrete", "distill.discrete.skip=2"),
        ("discrete", "diffusion.rho=3"),
        ("scm", "distill.scm.normalisation=1.0"),
        ("scm", "distill.scm.warmup=1.0"),
        ("phased", "distill.phased.edges=[4.0, 2.0, 0.2]"),
        ("phased", "distill.phased.gap_ratio=0.9"),
    ],
)  # fmt: skip
def test_options_have_effect(name, assignment):
    networks = Linear(0.3), Linear(0.1), Linear(0.2)
    default, changed = (losses_of(chosen(name, *chosen_too), networks) for chosen_too in ((), (assignment,)))
    assert not torch.allclose(default, changed, rtol=1e-6)


def test_recipe_of_the_original():
    """Uniform draws over a 40-point grid, neighbours, Heun, the plain mean square."""
    config = load_preset("original")
    objective = build_objective(config.distill, config.diffusion)
    student, target, teacher = Linear(0.3), Linear(0.1), Linear(0.2)
    ramp = torch.linspace(0, 1, 40, dtype=torch.float64)
    grid = (0.002 ** (1 / 7) + ramp * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    sigma, sigma_next = grid[[20, 25, 30, 39]], grid[[19, 24, 29, 38]]
    captions = torch.ones(4, 3, 4, dtype=torch.float64)
    jump = [consistency_function(network, SIGMA_DATA, SIGMA_MIN, captions, None) for network in (student, target)]
    denoise = edm_denoiser(teacher, SIGMA_DATA, captions)
    noisy = SIGMA_DATA * noise(4, seed=5) + sigma.view(-1, 1, 1, 1) * noise(4)
    span = (sigma_next - sigma).view(-1, 1, 1, 1)
    slope = (noisy - denoise(noisy, sigma)) / sigma.view(-1, 1, 1, 1)
    predicted = noisy + span * slope
    slope = (slope + (predicted - denoise(predicted, sigma_next)) / sigma_next.view(-1, 1, 1, 1)) / 2
    expected = (jump[0](noisy, sigma) - jump[1](noisy + span * slope, sigma_next)).square().mean(dim=(1, 2, 3))
    functions = Networks(jump[0], jump[1], denoise)
    drawn = sigma * (1 - 1e-12)  # a sigma is rounded up to the grid
    mine = objective(functions, SIGMA_DATA * noise(4, seed=5), noise(4), drawn, 0.5)
    assert torch.allclose(mine, expected, rtol=1e-9)
