"""The noise levels that a student jumps from: searched for on its own drawings, stored with its checkpoint."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from lcm_distill.config import Config
from lcm_distill.core.device import resolve_device, to_device
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import digest
from lcm_distill.core.randomness import normal
from lcm_distill.data.cache.cache import open_batches
from lcm_distill.diffusion.preconditioning import Denoiser, consistency_function, edm_scalings
from lcm_distill.diffusion.samplers import jump_again
from lcm_distill.diffusion.sigma_search import Levels, Trial, search_sigmas
from lcm_distill.evaluation.generation import generation_dtype
from lcm_distill.metrics.frechet import Moments, frechet_distance
from lcm_distill.models.checkpoint import load_checkpoint, redescribe
from lcm_distill.models.features import token_features
from lcm_distill.models.networks import build_network, load_teacher
from lcm_distill.models.precision import lower
from lcm_distill.pipeline.atomic import commit_bytes
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Progress, Task
from lcm_distill.training.student import describe_student, fingerprint

TRIALS = pa.schema(
    [("steps", pa.int64()), ("sigmas", pa.list_(pa.float64())), ("distance", pa.float64()), ("guidance", pa.float64()),
     ("samples", pa.int64())]
)  # fmt: skip
"""One row a trial."""

LOOK_AT = 0.3
"""Noise level at which the teacher looks at drawings and data: low enough that it sees what they show."""


def schedule(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Search the levels of every number of steps in `schedule.steps`; put them into student and configuration.

    Raises:
        UserError: there is no student yet, or it is a phased one, which jumps from its edges.
    """
    run.require(run.student, f"run `lcm distill` into {run.root} first")
    if config.distill.objective == "phased":
        raise UserError("distill.objective = 'phased': such a student jumps from its edges, there is nothing to search")
    manifest = Manifest(LocalStorage(run.schedule), TRIALS)
    numbers = config.schedule.steps
    tasks = {steps: Task(f"steps-{steps:02d}", _identity(config, steps)) for steps in numbers}
    done = manifest.done(list(tasks.values()))
    pending = [steps for steps in numbers if tasks[steps].name not in done]
    yield Progress("schedule", len(done), len(numbers), "schedules", resumed=len(done))
    drawings = Drawings(config, run) if pending else None
    for finished, steps in enumerate(pending, len(done)):
        assert drawings is not None
        trials: list[Trial] = []
        for trial in search_sigmas(drawings.distance, steps, config.diffusion.sigma_min, config.diffusion.sigma_max):
            trials.append(trial)
            counts = {"steps": steps, "trials": len(trials), "distance": min(trial.distance for trial in trials)}
            yield Progress("schedule", finished, len(numbers), "schedules", counts, len(done))
        manifest.drop([tasks[steps].name])
        manifest.commit(tasks[steps], [_row(config, steps, trial) for trial in trials], None)
        yield Progress("schedule", finished + 1, len(numbers), "schedules", resumed=len(done))
    _publish(config, run, best_sigmas(manifest))


def best_sigmas(manifest: Manifest) -> dict[int, list[float]]:
    """The levels of least distance by number of steps."""
    best: dict[int, dict[str, Any]] = {}
    for row in sorted(manifest.read().to_pylist(), key=lambda row: (row["steps"], row["distance"])):
        best.setdefault(row["steps"], row)
    return {steps: row["sigmas"] for steps, row in best.items()}


class Drawings:
    """Drawings of training captions, and how far they lie from the latents of those captions in the teacher's eyes."""

    def __init__(self, config: Config, run: RunFolder) -> None:
        self.config, self.levels, self.device = config, config.diffusion, resolve_device(config.device)
        batch = open_batches(config, run, config.schedule.samples, config.seed)[0]
        self.rows, size = batch.rows.tolist(), config.evaluate.batch_size
        self.clean, self.captions = batch.latents.float().split(size), batch.captions.float().split(size)
        self.teacher = load_teacher(config)
        self.student = build_network(config, guidance_embedding=True, empty=True).eval().requires_grad_(False)
        load_checkpoint(self.student, run.student)
        for network in (self.teacher, self.student):
            if generation_dtype(config) == "bfloat16":
                lower(network)
            network.to(self.device)
        self.first = [self._jump(part)(self._noise(0, part) * self._sigma_max, self._sigma_max) for part in self._parts]
        self.data = self._moments(self.clean)

    def distance(self, levels: Levels) -> float:
        """Fréchet distance of the drawings with these levels, the first of which is sigma_max."""
        return frechet_distance(self._moments([self._draw(part, levels) for part in self._parts]), self.data)

    @property
    def _parts(self) -> range:
        return range(len(self.clean))

    @property
    def _sigma_max(self) -> Tensor:
        return torch.tensor([self.levels.sigma_max], device=self.device)

    def _draw(self, part: int, levels: Levels) -> Tensor:
        x, jump = self.first[part], self._jump(part)
        sigmas = torch.tensor(levels, device=self.device)[:, None]
        for step, sigma in enumerate(sigmas[1:], 1):
            x = jump_again(jump, x, sigma, self.levels.sigma_min, self._noise(step, part))
        return x

    def _jump(self, part: int) -> Denoiser:
        captions = self.captions[part].to(self.device)
        guidance = torch.full((len(captions),), self.config.evaluate.guidance[0], device=self.device)
        function = consistency_function(self.student, self.levels.sigma_data, self.levels.sigma_min, captions, guidance)
        return torch.inference_mode()(function)

    def _noise(self, stream: int | str, part: int) -> Tensor:
        """Standard normal of the part's shape, the same in every trial."""
        size = len(self.clean[0])
        rows = self.rows[part * size : (part + 1) * size]
        return to_device(normal(self.config.seed, f"schedule {stream}", 0, rows, self.clean[0].shape[1:]), self.device)

    def _moments(self, latents: "list[Tensor] | tuple[Tensor, ...]") -> Moments:
        sigma = torch.tensor([LOOK_AT], device=self.device)
        scalings = edm_scalings(sigma, self.levels.sigma_data)
        parts = []
        for part, clean in enumerate(latents):
            noisy = clean.to(self.device) + LOOK_AT * self._noise("look", part)
            captions = self.captions[part].to(self.device)
            seen = token_features(self.teacher, noisy * scalings.input.view(1, 1, 1, 1), scalings.noise, captions)
            parts.append(Moments.of(seen.cpu()))
        return sum(parts[1:], parts[0])


def _identity(config: Config, steps: int) -> str:
    dtype = generation_dtype(config)
    return digest([
        fingerprint(config), config.schedule.samples, config.evaluate.guidance[0], steps,
        *([] if dtype == "float32" else [dtype]),
    ])  # fmt: skip


def _row(config: Config, steps: int, trial: Trial) -> dict[str, Any]:
    return {
        "steps": steps, "sigmas": list(trial.levels), "distance": trial.distance,
        "guidance": config.evaluate.guidance[0], "samples": config.schedule.samples,
    }  # fmt: skip


def _publish(config: Config, run: RunFolder, found: dict[int, list[float]]) -> None:
    """The student says what was found, and the run's configuration, which evaluation goes by, agrees."""
    settings = [f"evaluate.student_sigmas.{steps}={sigmas}" for steps, sigmas in found.items()]
    changed = config.changed(settings, "schedule")
    commit_bytes(run.student, redescribe(run.student, describe_student(changed)))
    run.open(changed)
