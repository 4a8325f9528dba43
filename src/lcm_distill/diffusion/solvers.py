"""One step along the probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma (arXiv 2206.00364, eq. 1)."""

from collections.abc import Callable

from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser

Solver = Callable[[Denoiser, Tensor, Tensor, Tensor], Tensor]
"""(denoiser, x (B, C, H, W), sigma (B,) or (1,), next sigma of the same shape) -> x at the next sigma.

None looks at the values of its tensors: a GPU's queue would have to run empty first.
"""


def euler_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """First order, one evaluation; the next sigma may be 0. On this ODE it is DDIM's step (arXiv 2010.02502)."""
    return x + _column(sigma_next - sigma, x) * _slope(denoise, x, sigma)


def heun_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Second order, two evaluations (arXiv 2206.00364, algorithm 1 between levels above 0, where the slope exists)."""
    slope = _slope(denoise, x, sigma)
    span = _column(sigma_next - sigma, x)
    end_slope = _slope(denoise, x + span * slope, sigma_next)
    return x + span * (slope + end_slope) / 2


SOLVERS: dict[str, Solver] = {"euler": euler_step, "heun": heun_step}


def network_evaluations(solver: str, steps: int, guided: bool) -> int:
    """Forward passes a sample takes over `steps` steps to sigma 0, both guidance branches counted."""
    evaluations = 2 * steps - 1 if solver == "heun" else steps
    return evaluations * (2 if guided else 1)


def _slope(denoise: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    return (x - denoise(x, sigma)) / _column(sigma, x)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1).to(like.dtype)
