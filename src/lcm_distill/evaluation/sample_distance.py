"""How far a student's samples are from the data, by sigmas: what `lcm schedule` minimises."""
# `Tensor.split` has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Sequence
from contextlib import closing

import torch
from torch import Tensor

from lcm_distill.config import Config
from lcm_distill.core.device import resolve_device, to_device
from lcm_distill.core.randomness import normal
from lcm_distill.data.cache.cache import Cache
from lcm_distill.diffusion.few_step_samplers import Deterministic
from lcm_distill.diffusion.preconditioning import Denoiser, consistency_function, edm_scalings
from lcm_distill.diffusion.samplers import consistency_step
from lcm_distill.diffusion.sigma_search import Sigmas
from lcm_distill.evaluation.generation import generation_dtype
from lcm_distill.evaluation.samplings import student_sampling
from lcm_distill.metrics.frechet import Moments, frechet_distance
from lcm_distill.models.checkpoint import load_checkpoint
from lcm_distill.models.networks import build_network, load_teacher
from lcm_distill.models.precision import cast_matrices
from lcm_distill.models.token_features import token_features
from lcm_distill.pipeline.run_folder import RunFolder

FEATURE_SIGMA = 0.3
"""Sigma at which the teacher's features of samples and data are computed: low enough to preserve their content."""


class StudentSamples:
    """A student's samples of training captions, and their distance from the captions' latents.

    The distance is Fréchet's, in the teacher's feature space. Noise is the same in every call.

    Args:
        run: holds the student's checkpoint and the cache.

    Attributes:
        diffusion: the range that the student was trained on, as its checkpoint records it.

    Raises:
        UserError: a checkpoint or the cache is missing or unreadable.
    """

    def __init__(self, config: Config, run: RunFolder) -> None:
        self.config, self.device = config, resolve_device(config.device)
        with closing(Cache.open(config, run).batches(config.schedule.samples, config.seed)) as batches:
            batch = batches[0]
        addresses, size = batch.addresses.tolist(), config.evaluate.batch_size
        self.addresses = [addresses[start : start + size] for start in range(0, len(addresses), size)]
        self.clean, self.captions = batch.latents.float().split(size), batch.captions.float().split(size)
        self.teacher = load_teacher(config.model)
        self.student = build_network(config.model, guidance_embedding=True, empty=True).eval().requires_grad_(False)
        load_checkpoint(self.student, run.student)
        known = student_sampling(config, run.student)
        self.diffusion, self.fresh_noise = known.diffusion, known.fresh_noise
        for network in (self.teacher, self.student):
            if generation_dtype(config.evaluate.dtype, config.device) == "bfloat16":
                cast_matrices(network)
            network.to(self.device)
        self.first = [self._first(part) for part in range(len(self.clean))]
        self.data = self._moments(self.clean)

    def distance(self, sigmas: Sigmas) -> float:
        """Fréchet distance of samples generated with these sigmas, the first of which is sigma_max."""
        samples = [self._sample(part, sigmas) for part in range(len(self.clean))]
        return frechet_distance(self._moments(samples), self.data)

    def _first(self, part: int) -> Tensor:
        """Samples after the first step, which all sigmas share."""
        sigma_max = torch.tensor([self.diffusion.sigma_max], device=self.device)
        return self._consistency_function(part)(self._noise("0", part) * sigma_max, sigma_max)

    def _sample(self, part: int, sigmas: Sigmas) -> Tensor:
        x, jump = self.first[part], self._consistency_function(part)
        if not self.fresh_noise:
            return Deterministic(sigmas, self.diffusion.sigma_min)(jump, lambda step: self._noise(str(step), part))
        rest = torch.tensor(sigmas[1:], device=self.device)[:, None]
        for step, sigma in enumerate(rest, 1):
            x = consistency_step(jump, x, sigma, self.diffusion.sigma_min, self._noise(str(step), part))
        return x

    def _consistency_function(self, part: int) -> Denoiser:
        captions = self.captions[part].to(self.device)
        guidance = torch.full((len(captions),), self.config.evaluate.guidance[0], device=self.device)
        settings = self.diffusion
        function = consistency_function(self.student, settings.sigma_data, settings.sigma_min, captions, guidance)
        return torch.inference_mode()(function)

    def _noise(self, stream: str, part: int) -> Tensor:
        """Standard normal noise of a part's shape."""
        shape = self.clean[0].shape[1:]
        return to_device(normal(self.config.seed, f"schedule {stream}", 0, self.addresses[part], shape), self.device)

    def _moments(self, latents: Sequence[Tensor]) -> Moments:
        sigma = torch.tensor([FEATURE_SIGMA], device=self.device)
        scalings = edm_scalings(sigma, self.config.diffusion.sigma_data)  # the teacher's
        parts: list[Moments] = []
        for part, clean in enumerate(latents):
            noisy = clean.to(self.device) + FEATURE_SIGMA * self._noise("look", part)
            captions = self.captions[part].to(self.device)
            features = token_features(self.teacher, noisy * scalings.input.view(1, 1, 1, 1), scalings.noise, captions)
            parts.append(Moments.of(features.cpu()))
        return sum(parts[1:], parts[0])
