"""The training loop that teacher and student share: schedule, step, averages, checkpoints, events."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcm_distill.config import OptimiserConfig
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.loader import Batch, Batches
from lcm_distill.diffusion.ema import power_decay, update_average
from lcm_distill.models.checkpoint import serialise
from lcm_distill.pipeline.atomic import commit_bytes
from lcm_distill.pipeline.task import Progress
from lcm_distill.training.anomaly import USUAL, Alarm
from lcm_distill.training.checkpoints import Checkpoints
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.engine.parallel import whole
from lcm_distill.training.engine.world import World
from lcm_distill.training.events import Events, recorded_losses
from lcm_distill.training.optimiser import build_optimiser, set_rate
from lcm_distill.training.state import training_tensors
from lcm_distill.training.throughput import peak_flop, peak_memory


def learning_rate(settings: OptimiserConfig, step: int) -> float:
    """Rate of a step counted from 0: linear warm-up, constant, linear decay that would reach zero at `steps`."""
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    decay_steps = settings.decay_fraction * settings.steps
    left = min(1.0, (settings.steps - step) / decay_steps) if decay_steps else 1.0
    return settings.learning_rate * warmup * settings.decayed(left)


@dataclass
class Training:
    """One model in training.

    Attributes:
        label: what is trained, for the progress line.
        folder: where checkpoints and events go.
        model: receives gradients.
        average: power-function average of the model; what is published.
        batches: this rank's part of every step's batch.
        loss: (step, batch) -> mean over the batch's samples, a function of the two alone.
        engine: what the networks were prepared by.
        critic: trained by the same loss beside the model, at `critic_rate` times its learning rate.
        after_step: called after each update, for averages of the objective's own.
        extra: further modules that are saved and restored, by name.
        flop: the networks' own operations to a sample, all passes together; None where nobody asks.
        sources: where samples come from, by their rows in the cache.
        validate: told of the steps done before the first step and after each, to draw with the average now and then.
    """

    label: str
    folder: Path
    fingerprint: str
    settings: OptimiserConfig
    model: nn.Module
    average: nn.Module
    batches: Batches
    loss: Callable[[int, Batch], Tensor]
    engine: Engine
    critic: nn.Module | None = None
    critic_rate: float = 1.0
    after_step: Callable[[], None] = lambda: None
    extra: Mapping[str, nn.Module] | None = None
    flop: float | None = None
    sources: Callable[[Iterable[int]], list[str]] = lambda rows: ["" for _ in rows]
    validate: Callable[[int, Events | None], Iterator[Progress]] = lambda step, events: iter(())

    def __post_init__(self) -> None:
        settings, world = self.settings, self.engine.world
        critic = {"critic": self.critic} if self.critic else {}
        self.trained = {"model": self.model, **critic}
        self.modules = {**self.trained, "average": self.average, **(self.extra or {})}
        shares = {self.model: 1.0} | ({self.critic: self.critic_rate} if self.critic else {})
        self.optimiser = build_optimiser(shares, settings)
        self.passes = passes(settings.batch_size, world.size, self.engine.settings.micro_batch)
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints",
            self.fingerprint,
            self.engine.settings.keep_checkpoints,
            background=world.device.type == "cuda",
        )
        self.alarm = Alarm(self.label, self.folder, self.engine.settings.spike)

    def run(self) -> Iterator[Progress]:
        """Train from the newest checkpoint to the last step.

        Raises:
            DataError: loss or gradient is not finite, or the loss far from the usual; checkpoints stay as they are, and
                one that is being written is finished, as it is when a training is interrupted.
        """
        start = self._resume()
        usual = recorded_losses(self.folder, start, USUAL)
        self.alarm = Alarm(self.label, self.folder, self.engine.settings.spike, usual)
        events = Events(self.folder, self.engine.settings, start) if self.engine.world.leads else None
        try:
            yield from self._steps(start, events)
        finally:
            if events:
                events.close()
            self.checkpoints.wait()

    def _steps(self, start: int, events: Events | None) -> Iterator[Progress]:
        total = self.settings.steps
        yield Progress(self.label, start, total, "steps", resumed=start)
        yield from self.validate(start, events)
        for step in range(start, total):
            figures = self._step(step)
            if events:
                events.stepped(step, figures)
            done = step + 1
            if step == start:  # the optimiser has all its tensors now
                self.checkpoints.reserve(self.tensors())
            if done % self.settings.checkpoint_every == 0 or done == total:
                self._save(done, events)
            shown = {name: value for name, value in figures.items() if name != "seconds" and value is not None}
            yield Progress(self.label, done, total, "steps", shown, start)
            yield from self.validate(done, events)

    def _step(self, step: int) -> dict[str, float | None]:
        began = time.perf_counter()
        rate = learning_rate(self.settings, step)
        set_rate(self.optimiser, rate)
        self.optimiser.zero_grad()
        loss = self._accumulate(step)
        norms = [
            whole(nn.utils.clip_grad_norm_(group["params"], self.settings.clip_norm))
            for group in self.optimiser.param_groups
        ]
        # The only time in a step that a GPU's queue is waited for: nothing that is not finite may reach the weights.
        loss, *norms = torch.stack([self.engine.world.sum(loss), *norms]).tolist()
        if complaint := self.alarm.complaint(loss, max(norms, key=lambda norm: math.inf if math.isnan(norm) else norm)):
            self._stop(step, complaint)
        self.optimiser.step()
        update_average(self.average, self.model, power_decay(step + 1, self.settings.ema_exponent))
        self.after_step()
        self.engine.refresh()
        return {
            "loss": loss,
            "gradient_norm": norms[0],
            "learning_rate": rate,
            **self._speed(time.perf_counter() - began),
        }

    def _accumulate(self, step: int) -> Tensor:
        """This rank's share of a batch's loss, and the whole batch's gradient."""
        world, parts = self.engine.world, self.batches[step].split(self.passes)
        total = torch.zeros((), device=world.device)
        for number, part in enumerate(parts, 1):
            with self.engine.held_back(number < len(parts)):
                loss = self.loss(step, part) * (len(part.rows) / self.settings.batch_size)
                (loss * world.size).backward()  # ranks take the mean of gradients, not their sum
            total += loss.detach()
        return total

    def _speed(self, seconds: float) -> dict[str, float | None]:
        world, peak = self.engine.world, peak_flop(self.engine.world.device)
        images = self.settings.batch_size / seconds
        share = images * self.flop / (peak * world.size) if self.flop and peak else None
        return {
            "seconds": seconds,
            "images_per_second": images,
            "flop_utilisation": share,
            "memory_gib": peak_memory(world.device),
        }

    def _stop(self, step: int, complaint: str) -> None:
        rows = self.batches.samples(step).tolist()
        samples = [{"row": row, "source": source} for row, source in zip(rows, self.sources(rows), strict=True)]
        self.alarm.stop(step, complaint, samples, self.engine.world.leads)

    def _resume(self) -> int:
        step = self.checkpoints.load_latest(self.tensors) or 0
        self.engine.refresh()
        return step

    def _save(self, step: int, events: Events | None) -> None:
        # Events go first: a crash in between repeats these steps and writes the same file again.
        if events:
            events.flush()
        self.checkpoints.save(step, self.tensors())

    def tensors(self) -> dict[str, Tensor]:
        return training_tensors(self.modules, self.trained, self.optimiser)


def publish(path: Path, weights: Mapping[str, Tensor], description: Mapping[str, Any], world: World) -> None:
    """Commit weights in one piece, which the first rank has, as a safetensors file; every rank must call."""
    if world.leads:
        commit_bytes(path, serialise(weights, description))
    world.wait()


def passes(batch_size: int, ranks: int, micro_batch: int | None) -> int:
    """Passes of every rank to a step, the same on all of them.

    Raises:
        UserError: somebody would have none of the samples.
    """
    largest, smallest = math.ceil(batch_size / ranks), batch_size // ranks
    count = math.ceil(largest / micro_batch) if micro_batch else 1
    if count > smallest:
        raise UserError(
            f"batch_size {batch_size} leaves some of {ranks} ranks without a sample in one of {count} passes: "
            "raise batch_size or engine.micro_batch, or start fewer ranks"
        )
    return count
