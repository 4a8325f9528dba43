"""The training loop that teacher and student share: optimiser steps, averages, checkpoints and events."""

import math
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from lcm_distill.config import OptimiserConfig
from lcm_distill.core.errors import DataError
from lcm_distill.core.interruption import Signals, Stopped
from lcm_distill.data.cache.loader import Batches, rows_not_finite
from lcm_distill.diffusion.ema import power_decay, update_average
from lcm_distill.models.checkpoint import has_weights, serialise
from lcm_distill.pipeline.atomic_writes import commit_bytes
from lcm_distill.pipeline.task import Progress
from lcm_distill.training.anomaly import ENCODE_AGAIN, HISTORY, LOWER_RATE, REPORT, RESUME, AnomalyDetector
from lcm_distill.training.checkpointing.tensors import not_finite
from lcm_distill.training.checkpoints import Checkpoints, Continues, continues_none
from lcm_distill.training.engine.agreement import all_found, decide_on_main
from lcm_distill.training.engine.engine import Engine, accumulation_steps
from lcm_distill.training.engine.parallel import full_tensor
from lcm_distill.training.engine.world import World
from lcm_distill.training.events import Events, recorded_losses
from lcm_distill.training.health import Health, health_figures
from lcm_distill.training.loss import Loss, total
from lcm_distill.training.optimiser import build_optimiser, learning_rate, set_learning_rate
from lcm_distill.training.throughput import throughput
from lcm_distill.training.training_state import training_tensors

Validate = Callable[[int, Events | None], Iterator[Progress]]
"""(completed steps, events of rank 0) -> progress. Called on every rank before the first step and after each step."""


def no_validation(step: int, events: Events | None) -> Iterator[Progress]:
    """A `Validate` that does nothing."""
    del step, events
    yield from ()


@dataclass
class Trainer:
    """Trains one network, and others beside it.

    Attributes:
        label: what is trained, for progress and messages.
        folder: where checkpoints and events go.
        fingerprint: identity of the training; checkpoints of another one are refused.
        settings: optimiser and schedule.
        model: the trained network.
        average: power-function average of the model's weights, which is published.
        batches: this rank's part of the batch of every step.
        loss: see `Loss`.
        observed: what the loss has shown since the last call, sums over samples for `health_figures`.
        engine: prepared the networks.
        beside: networks that the same loss trains, by name, each with its learning rate over the model's.
        after_step: called after each update, for further averages.
        extra: further modules to save and restore, by name.
        flop: operations of all passes for one sample, without recomputation; None to leave utilisation out.
        sources: names the origin of samples, by their rows in the cache.
        validate: see `Validate`.
        continues: which other trainings' checkpoints it goes on from.
    """

    label: str
    folder: Path
    fingerprint: str
    settings: OptimiserConfig
    model: nn.Module
    average: nn.Module
    batches: Batches
    loss: Loss
    engine: Engine
    beside: Mapping[str, tuple[nn.Module, float]] = field(default_factory=dict[str, tuple[nn.Module, float]])
    after_step: Callable[[], None] = lambda: None
    observed: Callable[[], Mapping[str, Tensor]] = dict[str, Tensor]
    extra: Mapping[str, nn.Module] | None = None
    flop: float | None = None
    sources: Callable[[Iterable[int]], list[str]] = lambda rows: ["" for _ in rows]
    validate: Validate = no_validation
    continues: Continues = continues_none

    def __post_init__(self) -> None:
        settings, world = self.settings, self.engine.world
        self.trained = {"model": self.model, **{name: network for name, (network, _) in self.beside.items()}}
        self.modules = {**self.trained, "average": self.average, **(self.extra or {})}
        self.optimiser = build_optimiser({self.model: 1.0, **dict(self.beside.values())}, settings)
        self.passes = accumulation_steps(settings.batch_size, world.size, self.engine.settings.micro_batch)
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints",
            self.fingerprint,
            self.engine.settings.keep_checkpoints,
            background=world.device.type == "cuda",
            continues=self.continues,
        )
        self.anomalies = AnomalyDetector(self.label, self.folder, self.engine.settings.spike)
        self.health = Health(self.label)
        self.signals, self._stopping = Signals(), False

    def run(self) -> Generator[Progress]:
        """Train from the newest checkpoint to the last step.

        A checkpoint that is being written when training stops or is interrupted is completed first. Ctrl-C and SIGTERM
        to any rank end it on all of them after the step, with a checkpoint of it.

        Raises:
            Stopped: a signal has ended it.
            DataError: a loss, gradient or weight is not finite, or a loss spikes (checkpoints stay intact), or every
                checkpoint is damaged.
            UserError: the checkpoints belong to a training with other settings.
        """
        start = self._resume()
        losses = recorded_losses(self.folder, start, HISTORY)
        self.anomalies = AnomalyDetector(self.label, self.folder, self.engine.settings.spike, losses)
        every = self.settings.checkpoint_every
        events = Events(self.folder, self.engine.settings, start, every) if self.engine.world.is_main else None
        with self.signals:
            try:
                yield from self._steps(start, events)
                if events:
                    (self.folder / REPORT).unlink(missing_ok=True)  # of a stop that is overcome
            finally:
                if events:
                    events.close()
                self.batches.close()
                self.checkpoints.close()

    def _steps(self, start: int, events: Events | None) -> Iterator[Progress]:
        total = self.settings.steps
        yield Progress(self.label, start, total, "steps", resumed=start)
        yield from self.validate(start, events)
        for step in range(start, total):
            figures = self._step(step)
            if events:
                events.add_step(step, figures)
                self.health.warn(step, figures)
            done = step + 1
            if step == start:  # the optimiser now has all its state tensors
                self.checkpoints.reserve(self.tensors())
            due = done % self.settings.checkpoint_every == 0 or done == total
            if due or self._stopping:
                self._save(done, events, early=not due)
            if self._stopping:
                raise self._stopped(done)
            shown = {name: value for name, value in figures.items() if name != "seconds" and value is not None}
            yield Progress(self.label, done, total, "steps", shown, start)
            yield from self.validate(done, events)
        if all_found(["a signal"] if self.signals.noted else []):
            raise self._stopped(total)

    def _stopped(self, step: int) -> Stopped:
        number = self.signals.noted or signal.SIGTERM  # of another rank
        return Stopped(
            f"{self.label}: stopped by {signal.Signals(number).name} after step {step} of {self.settings.steps}, whose "
            "checkpoint is saved; the same command resumes from it",
            number,
        )

    def _step(self, step: int) -> dict[str, float | None]:
        """One optimiser step; its figures as `EVENTS` has them."""
        began, world = time.perf_counter(), self.engine.world
        rate = learning_rate(self.settings, step)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.zero_grad()
        losses, gradient_norm, health = self._gradients(step)
        self.optimiser.step()
        update_average(self.average, self.model, power_decay(step + 1, self.settings.ema_exponent))
        self.after_step()
        self.engine.refresh_copies()
        return {
            **losses,
            "gradient_norm": gradient_norm,
            "learning_rate": rate,
            **throughput(self.settings.batch_size, time.perf_counter() - began, self.flop, world),
            **health,
        }

    def _gradients(self, step: int) -> tuple[dict[str, float], float, dict[str, float]]:
        """Compute the batch's clipped gradients.

        Returns:
            The batch's losses, the norm of the model's gradient before clipping, and the figures of its health.

        Raises:
            DataError: loss or gradients are not finite, or the loss spikes.
        """
        losses, observed = self._accumulate(step), self.observed()
        norms = [
            full_tensor(nn.utils.clip_grad_norm_(group["params"], self.settings.clip_norm))
            for group in self.optimiser.param_groups
        ]
        # The step's only synchronisation with the GPU: weights must not be updated by values that are not finite.
        told = torch.full_like(losses["loss"], self.signals.noted is not None)
        shared = self.engine.world.all_reduce_sum(torch.stack([told, *losses.values(), *observed.values()]))
        stopping, *figures = cast(list[float], torch.cat([shared, torch.stack(norms)]).tolist())  # pyright: ignore[reportUnknownMemberType]
        values, gradient_norms = dict(zip(losses, figures, strict=False)), figures[len(losses) + len(observed) :]
        sums = dict(zip(observed, figures[len(losses) :], strict=False))
        largest = max(gradient_norms, key=lambda norm: math.inf if math.isnan(norm) else norm)
        if anomaly := self.anomalies.check(values["loss"], largest):
            self._stop(step, anomaly)
        self._stopping = stopping > 0
        return values, gradient_norms[0], health_figures(sums, self.settings.batch_size)

    def _accumulate(self, step: int) -> dict[str, Tensor]:
        """Backward passes over the step's micro-batches; this rank's share of the batch's mean losses.

        They are scalars by their columns in `EVENTS`: `loss` and, if it has several terms, each of them.
        """
        world, parts = self.engine.world, self.batches[step].split(self.passes)
        losses = dict[str, Tensor]()
        for number, part in enumerate(parts, 1):
            share = len(part.rows) / self.settings.batch_size
            with self.engine.no_sync(number < len(parts)):
                terms = self.loss(step, part)
                loss = total(terms) * share
                (loss * world.size).backward()  # pyright: ignore[reportUnknownMemberType]  (averaged over the ranks, not summed)
            named = {"loss": loss, **({name: term * share for name, term in terms.items()} if len(terms) > 1 else {})}
            losses = {name: losses.get(name, 0) + value.detach() for name, value in named.items()}
        return losses

    def _stop(self, step: int, anomaly: str) -> NoReturn:
        """End the training because of a step's loss or gradient, naming its cause if that is the samples."""
        remedy = LOWER_RATE
        if rows := all_found(rows_not_finite(self.batches[step])):
            anomaly, remedy = f"{anomaly}, as in the cache row {rows[0]} is not finite", ENCODE_AGAIN
        elif self._weights_not_finite():
            remedy = RESUME
        self._end(step, anomaly, remedy)

    def _end(self, step: int, anomaly: str, remedy: str) -> NoReturn:
        rows = self.batches.samples(step).tolist()
        samples = [{"row": row, "source": source} for row, source in zip(rows, self.sources(rows), strict=True)]
        self.anomalies.stop(step, anomaly, samples, self.engine.world.is_main, remedy)

    def _weights_not_finite(self) -> list[str]:
        """Names of weights, on any rank, that are not finite."""
        names = {
            f"{name}.{key}": value
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        return all_found(not_finite(names))

    def _resume(self) -> int:
        step = self.checkpoints.load_latest(self.tensors) or 0
        if step and step == self.checkpoints.steps()[-1]:  # else those before a damaged one are needed
            self.checkpoints.drop_old()
        if step == 0 and (bad := self._weights_not_finite()):
            raise DataError(
                f"{self.label}: {bad[0]} is not finite before the first step: start from another checkpoint"
            )
        self.engine.refresh_copies()
        return step

    def _save(self, step: int, events: Events | None, early: bool) -> None:
        tensors = self.tensors()
        if bad := all_found(not_finite(tensors)):
            self._end(step - 1, f"{bad[0]} got values that are not finite", RESUME)
        # Events first: after a crash in between, the repeated steps write the same file again.
        if events:
            events.flush()
        self.checkpoints.save(step, tensors, early)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds; see `training_tensors`."""
        return training_tensors(self.modules, self.trained, self.optimiser)


def publish(path: Path, weights: Mapping[str, Tensor], description: Mapping[str, Any], world: World) -> None:
    """Commit weights as a safetensors file. Every rank must make this call.

    A file that has these weights stays as it is, with the sigmas that `lcm schedule` found for them.

    Args:
        weights: whole, on rank 0; ignored on others.
        description: stored in the file; see `serialise`.

    Raises:
        DataError: a weight is not finite; nothing was written.
    """

    def write() -> None:
        if bad := not_finite(weights):
            raise DataError(f"{path} is not written: {bad[0]} is not finite; the same command resumes the training")
        if not has_weights(path, weights):
            commit_bytes(path, serialise(weights, description))

    decide_on_main(write)
    world.barrier()
