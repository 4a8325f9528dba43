"""How far a student answers to its guidance scale, beside its teacher, in latents: rows of `metrics.parquet`.

Fréchet distances and caption scores hardly show it: captions saturate, and distances fall and rise with the scale. Here
the final latents at two scales are compared sample by sample, from the same noisy samples, which lie on trajectories of
the teacher.
"""

from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from math import inf
from typing import Any

import torch
from torch import Tensor

from lcm_distill.api import TextToImage, assemble
from lcm_distill.config import Config, EvaluateConfig
from lcm_distill.core.device import resolve_device, to_device
from lcm_distill.core.randomness import normal
from lcm_distill.diffusion.few_step_samplers import FewStepSampler
from lcm_distill.diffusion.samplers import Heun, Sampler
from lcm_distill.diffusion.scale_difference import scale_difference, trajectory_point
from lcm_distill.evaluation.metric_rows import FINGERPRINTED
from lcm_distill.evaluation.prompt_files import Prompt, prompt_source
from lcm_distill.evaluation.samplings import student_samplers
from lcm_distill.metrics.guidance_response_metrics import GuidanceResponse, guidance_response, mean_response
from lcm_distill.metrics.seed_diversity import seed_diversity
from lcm_distill.models.checkpoint_identity import checkpoint_sha256
from lcm_distill.models.networks import teacher_path
from lcm_distill.pipeline.run_folder import RunFolder, source_commit
from lcm_distill.pipeline.task import Progress
from lcm_distill.report.figure_columns import LATENTS

STARTS = (10.0, 2.0)
"""Noise levels of the noisy samples, below sigma_max, from which the response is measured as well."""
SAMPLES = 192
"""Captions at most, the first ones. The figures of 192 samples vary by about 0.01 between sets of captions."""
SOLVER_STEPS = 18
"""Heun steps of the teacher from each start to the end."""
SEEDS = 3
"""Samples of each caption whose distances from each other are compared with those of the teacher's."""


def measures_response(settings: EvaluateConfig) -> bool:
    """Whether there are two guidance scales, and a student and a teacher to compare."""
    return len(settings.guidance) > 1 and "student" in settings.models


def response_rows(
    comparison: "ResponseComparison", config: Config, run: RunFolder, label: str = "respond"
) -> Generator[Progress, None, list[dict[str, Any]]]:
    """Rows of `METRICS` for the samplings of a run's student, between the lowest and the highest guidance scale.

    They stand at the highest scale. The figures are means over the starts; `guidance_slope_from_...` is of one, and
    `seed_diversity`, over the teacher's as well, is of whole samples at the highest scale.

    Raises:
        UserError: the student's checkpoint is missing or unreadable.
    """
    student = assemble(config.model, config.encoders, config.diffusion, run.student, "student")
    shared = {
        "model": "student", "guidance": comparison.scales[1], "images": len(comparison.prompts), "protocol": LATENTS,
        "extractor": None, "extractor_sha256": None, "seconds_per_image": None,
        "reference": f"teacher:{checkpoint_sha256(teacher_path(config.model))[:12]}",
        "prompts": comparison.prompt_source, "seed": config.generation_seed, "same_noise": False,
        "dtype": "float32", "checkpoint": str(run.student), "checkpoint_sha256": checkpoint_sha256(run.student),
        "config_fingerprint": config.fingerprint(*FINGERPRINTED), "commit": source_commit(), "time": datetime.now(UTC),
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    samplers = student_samplers(config, run.student)
    for number, sampler in enumerate(samplers):
        yield Progress(label, number, len(samplers), "samplers")
        own = {"sampler": sampler.name, "steps": sampler.steps, "sigmas": list(sampler.sigmas),
               "network_evaluations": sampler.evaluations(guided=True)}  # fmt: skip
        figures = _figures(comparison.responses(student, sampler))
        figures["seed_diversity"] = comparison.diversity(student, sampler) / comparison.teacher_diversity
        rows += [{**shared, **own, "metric": metric, "value": value} for metric, value in figures.items()]
    yield Progress(label, len(samplers), len(samplers), "samplers")
    return rows


def _figures(responses: Mapping[float, GuidanceResponse]) -> dict[str, float]:
    """Figures by name, of responses by their start."""
    mean = mean_response(list(responses.values()))
    slopes = {f"guidance_slope_from_{start:g}": response.slope for start, response in responses.items()}
    return {"guidance_slope": mean.slope, "guidance_size": mean.size, "guidance_cosine": mean.cosine, **slopes}


class ResponseComparison:
    """The teacher's difference between two guidance scales, by start, computed once; students are held against it.

    Everything is float32, as differences are small beside the rounding of bfloat16.

    Args:
        highest: of the starts, where the students' sigma_max is lower than the teacher's.

    Attributes:
        scales: the lower and the higher guidance scale.
        prompts: whose captions are sampled, `SAMPLES` at most. prompt_source: what all prompts are called in figures.
    """

    def __init__(self, config: Config, prompts: Sequence[Prompt], highest: float = inf) -> None:
        self.config, self.prompt_source = config, prompt_source(config.evaluate.prompts, prompts)
        self.prompts = prompts = prompts[:SAMPLES]
        self.scales = min(config.evaluate.guidance), max(config.evaluate.guidance)
        self.device, size = resolve_device(config.device), config.evaluate.batch_size
        checkpoint = teacher_path(config.model)
        self.teacher = assemble(config.model, config.encoders, config.diffusion, checkpoint, "teacher").to(self.device)
        self.parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        self.captions = [self._encoded(part) for part in self.parts]
        highest = min(highest, config.diffusion.sigma_max)
        self.starts = [highest, *(start for start in STARTS if start < highest)]
        self.points = {start: [self._point(part, start) for part in range(len(self.parts))] for start in self.starts}
        self.expected = {
            start: self._difference(self.teacher, self._solver(start), points) for start, points in self.points.items()
        }

    def responses(self, student: TextToImage, sampler: FewStepSampler) -> dict[float, GuidanceResponse]:
        """A student's response under a sampler, by start."""
        student.to(self.device)
        return {
            start: guidance_response(self._difference(student, sampler.started_at(start), points), self.expected[start])
            for start, points in self.points.items()
        }

    def diversity(self, model: TextToImage, sampler: Sampler) -> float:
        """Mean distance of a model's samples of one caption between seeds, in latents, at the higher scale."""
        model.to(self.device)
        return seed_diversity(torch.stack([self._samples(model, sampler, seed) for seed in range(SEEDS)]))

    @cached_property
    def teacher_diversity(self) -> float:
        """`diversity` of the teacher, from the highest start."""
        return self.diversity(self.teacher, self._solver(self.starts[0]))

    @torch.inference_mode()
    def _samples(self, model: TextToImage, sampler: Sampler, seed: int) -> Tensor:
        """A sample of each caption at the higher scale, on the CPU."""
        parts = [
            sampler(model.denoiser(captions, self.scales[1]), partial(self._noise, part, stream=f"diversity {seed}"))
            for part, captions in enumerate(self.captions)
        ]
        return torch.cat(parts).cpu()

    def _solver(self, start: float) -> Heun:
        diffusion = self.config.diffusion
        return Heun(SOLVER_STEPS, diffusion.sigma_min, start, diffusion.rho)

    def _encoded(self, prompts: Sequence[Prompt]) -> Tensor:
        return self.teacher.text_encoder.encode([prompt.caption for prompt in prompts]).to(self.device)

    @torch.inference_mode()
    def _point(self, part: int, start: float) -> Tensor:
        """Noisy samples of a part at a start, on the teacher's trajectories at the middle of the two scales."""
        denoise = self.teacher.denoiser(self.captions[part], sum(self.scales) / 2)
        return trajectory_point(denoise, self._noise(part, 0), self.config.diffusion.sigma_max, start, SOLVER_STEPS)

    @torch.inference_mode()
    def _difference(self, model: TextToImage, sampler: Sampler, points: Sequence[Tensor]) -> Tensor:
        """What the higher scale makes of all samples less what the lower does, on the CPU."""
        parts = [
            scale_difference(
                partial(model.denoiser, self.captions[part]), sampler, point, partial(self._noise, part), self.scales
            )
            for part, point in enumerate(points)
        ]
        return torch.cat(parts).cpu()

    def _noise(self, part: int, step: int, stream: str = "generate") -> Tensor:
        """Standard normal noise of a sampler's step; by default that of the evaluation's images."""
        network, ids = self.teacher.network, [prompt.image_id for prompt in self.parts[part]]
        shape = network.in_channels, network.latent_size, network.latent_size
        return to_device(normal(self.config.generation_seed, stream, step, ids, shape), self.device)
