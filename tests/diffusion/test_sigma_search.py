"""The search for sigmas, on distances whose minimum is known."""

import math

import pytest

from lcm_distill.diffusion.sigma_search import Sigmas, geometric_sigmas, search_sigmas

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0


def found(distance, steps: int, sigma_max: float = SIGMA_MAX) -> tuple[Sigmas, list[Sigmas]]:
    """The sigmas of least distance, and all that were tried."""
    trials = list(search_sigmas(distance, steps, SIGMA_MIN, sigma_max))
    return min(trials, key=lambda trial: trial.distance).sigmas, [trial.sigmas for trial in trials]


def away_from(*wanted: float):
    """Squared distance in ln sigma of the second and the last sigma from the given ones."""
    return lambda sigmas: sum(
        math.log(sigma / want) ** 2 for sigma, want in zip((sigmas[1], sigmas[-1]), wanted, strict=True)
    )


def test_sigmas_fall_geometrically():
    assert geometric_sigmas(1, 80.0, ()) == (80.0,)
    assert geometric_sigmas(2, 80.0, (2.0,)) == (80.0, 2.0)
    assert geometric_sigmas(5, 80.0, (8.0, 1.0)) == (80.0, 8.0, 4.0, 2.0, 1.0)


def test_one_step_has_nothing_to_search():
    assert found(lambda sigmas: 1.0, 1) == ((80.0,), [(80.0,)])


@pytest.mark.parametrize("wanted", [0.0312, 0.5, 1.41, 16.0])
def test_two_steps(wanted):
    best, tried = found(lambda sigmas: math.log(sigmas[1] / wanted) ** 2, 2)
    assert best == (80.0, wanted) and len(set(tried)) == len(tried)


@pytest.mark.parametrize("steps", [3, 4, 8])
@pytest.mark.parametrize("wanted", [(16.0, 0.25), (1.0, 0.0625), (5.66, 2.0), (32.0, 11.3)])
def test_more_steps(steps, wanted):
    best, tried = found(away_from(*wanted), steps)
    assert (best[1], best[-1]) == wanted and len(best) == steps
    assert len(set(tried)) == len(tried)


def test_coupled_ends_are_moved_together():
    # A valley along the diagonal: neither end alone improves on it by a factor of 2.
    def valley(sigmas: Sigmas) -> float:
        first, last = math.log2(sigmas[1]), math.log2(sigmas[-1])
        return 100 * (first - last - 3) ** 2 + (first + last - 7) ** 2

    assert found(valley, 4)[0] == (80.0, 32.0, 11.3, 4.0)


def test_sigmas_stay_between_the_ends():
    best, tried = found(lambda sigmas: -sigmas[1], 3, sigma_max=10.0)
    assert all(10.0 > sigmas[1] > sigmas[2] > SIGMA_MIN for sigmas in tried) and best[1] == 8.0
    best, tried = found(lambda sigmas: sigmas[1], 2)
    assert all(sigmas[1] > SIGMA_MIN for sigmas in tried) and best[1] < 1.5 * SIGMA_MIN


@pytest.mark.parametrize(
    ("sigma_min", "sigma_max"), [(0.002, 4.0), (0.002, 1.0), (0.002, 0.4), (0.6, 80.0), (1.0, 3.0), (5.0, 80.0)]
)
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_every_trial_falls_whatever_the_range(steps, sigma_min, sigma_max):
    trials = list(search_sigmas(sum, steps, sigma_min, sigma_max))
    for sigmas, _ in trials:
        cuts = [*sigmas, sigma_min]
        assert len(sigmas) == steps and sigmas[0] == sigma_max and sorted(set(cuts), reverse=True) == cuts
