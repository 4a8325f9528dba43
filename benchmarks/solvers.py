"""What one step of each solver is off by, from a pair's noisier point to its nearer one, on the teacher of `shapes`.

    python benchmarks/solvers.py

A figure is the root mean square of the step's error, over 64 latents on trajectories of the teacher guided by 2, in
units of the nearer point's sigma. The exact step is 16 of Heun's.
"""

from itertools import pairwise

import torch
from precision import GUIDANCE, SAMPLES, embedded_captions
from torch import Tensor

from lcm_distill.config import load_preset
from lcm_distill.core.randomness import normal
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.preconditioning import Denoiser
from lcm_distill.diffusion.samplers import SOLVERS, Solver, heun_step
from lcm_distill.models.networks import load_teacher

SUBSTEPS = 16
SIGMAS = (80.0, 20.0, 5.0, 1.2, 0.3, 0.1)
RATIOS = (0.75, 0.5, 0.35)


def follow(solver: Solver, denoise: Denoiser, x: Tensor, sigma: float, nearer: float, steps: int) -> Tensor:
    """The point at `nearer` of the trajectory through x at `sigma`, in so many steps of equal ratio."""
    sigmas = sigma * (nearer / sigma) ** (torch.arange(steps + 1) / steps)
    for start, end in pairwise(sigmas):
        x = solver(denoise, x, start[None], end[None])
    return x


@torch.inference_mode()
def main() -> None:
    """Print a table: a row a noise level, a column a solver at a ratio of the pair's noise levels."""
    config = load_preset("shapes")
    guidance = torch.full((SAMPLES,), GUIDANCE)
    denoise = guided_denoiser(load_teacher(config.model), config.diffusion.sigma_data, embedded_captions(), guidance)
    columns = [(name, ratio) for ratio in RATIOS for name in SOLVERS]
    print(f"{'sigma':>6} |" + "".join(f"{f'{name} {ratio:g}':>15}" for name, ratio in columns))
    x, here = 80 * normal(0, "solvers", 0, range(SAMPLES), (8, 8, 8)), 80.0
    for sigma in SIGMAS:
        x, here = follow(heun_step, denoise, x, here, sigma, SUBSTEPS), sigma
        ends = {ratio: follow(heun_step, denoise, x, sigma, ratio * sigma, SUBSTEPS) for ratio in RATIOS}
        errors = [follow(SOLVERS[name], denoise, x, sigma, ratio * sigma, 1) - ends[ratio] for name, ratio in columns]
        sizes = [
            (error.square().mean().sqrt() / (ratio * sigma)).item()
            for error, (_, ratio) in zip(errors, columns, strict=True)
        ]
        print(f"{sigma:>6g} |" + "".join(f"{size:>15.4f}" for size in sizes))


if __name__ == "__main__":
    main()
