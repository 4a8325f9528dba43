"""Print how far a perfect student would answer to the guidance scale: what its sampler costs, whatever its training.

    python scripts/measure_exact_student.py --run runs/shapes [--captions 96]

A perfect student's jump is the end of the teacher's own trajectory, here by Heun's method. Each sampler of one to four
steps is measured as `lcm evaluate --guidance` measures a student. The run needs its teacher and its cache. Takes six
minutes on one core.
"""

import argparse
from pathlib import Path

from torch import Tensor

from lcm_distill.api import LatentDiffusion, TextToImage
from lcm_distill.config.loading import load_file
from lcm_distill.diffusion.few_step_samplers import Consistency, Deterministic, FewStepSampler
from lcm_distill.diffusion.preconditioning import Denoiser
from lcm_distill.diffusion.samplers import Heun
from lcm_distill.evaluation.guidance_response_measurement import ResponseComparison
from lcm_distill.evaluation.prompts import find_prompts
from lcm_distill.metrics.guidance_response_metrics import mean_response
from lcm_distill.pipeline.run_folder import RunFolder

SIGMAS = ((80.0,), (80.0, 2.0), (80.0, 8.0, 2.0, 0.5), (80.0, 4.0, 1.5, 0.6), (80.0, 2.0, 0.5, 0.2))


class ExactStudent(LatentDiffusion):
    """A consistency model whose jumps are the trajectories of the teacher that it is made from."""

    steps = 14
    """Heun steps from sigma_max down; a jump from lower has a share of them, seven at least."""

    @classmethod
    def of(cls, teacher: TextToImage) -> "ExactStudent":
        """With the teacher's network, encoders and noise levels."""
        return cls(teacher.network, teacher.image_encoder, teacher.text_encoder, teacher.diffusion)

    def denoiser(self, captions: Tensor, guidance: float | None) -> Denoiser:
        """The consistency function at a guidance scale; all of a batch have one sigma."""
        denoise, diffusion = super().denoiser(captions, guidance), self.diffusion

        def jump(x: Tensor, sigma: Tensor) -> Tensor:
            start = float(sigma.flatten()[0])
            share = (start / diffusion.sigma_max) ** (1 / diffusion.rho)
            solver = Heun(max(7, round(share * self.steps)), diffusion.sigma_min, start, diffusion.rho)
            return solver(denoise, lambda step: x / start)

        return jump


def samplers(sigma_min: float) -> list[FewStepSampler]:
    """With fresh noise and without; in one step they are the same."""
    fresh: list[FewStepSampler] = [Consistency(sigmas, sigma_min) for sigmas in SIGMAS]
    return fresh + [Deterministic(sigmas, sigma_min) for sigmas in SIGMAS if len(sigmas) > 1]


def main(folder: Path, captions: int) -> None:
    """Print a line for each sampler: slopes by the start of the trajectories, and the mean slope, size and cosine."""
    scales = list(load_file(folder / "config.toml").distill.guidance_range)
    config = load_file(folder / "config.toml", [f"evaluate.guidance={scales}"])
    comparison = ResponseComparison(config, find_prompts(config, RunFolder(folder))[:captions])
    student = ExactStudent.of(comparison.teacher)
    for sampler in samplers(config.diffusion.sigma_min):
        responses = comparison.responses(student, sampler)
        slopes = ", ".join(f"{response.slope:.2f} from {start:g}" for start, response in responses.items())
        mean = mean_response(list(responses.values()))
        sigmas = " ".join(f"{sigma:g}" for sigma in sampler.sigmas)
        print(
            f"{sampler.name}, {sigmas}: slopes {slopes}; mean slope {mean.slope:.2f}, size {mean.size:.2f}, "
            f"cosine {mean.cosine:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--captions", type=int, default=96)
    arguments = parser.parse_args()
    main(arguments.run, arguments.captions)
