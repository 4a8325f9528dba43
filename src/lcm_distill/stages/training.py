"""The training loop that teacher and student share: schedule, step, averages, checkpoints, events."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from lcm_distill.config import OptimiserConfig
from lcm_distill.diffusion.ema import power_decay, update_average
from lcm_distill.errors import DataError
from lcm_distill.pipeline.atomic import commit_file
from lcm_distill.pipeline.checkpoints import Checkpoints
from lcm_distill.pipeline.task import Progress

EVENTS = pa.schema(
    [("step", pa.int64()), ("loss", pa.float64()), ("gradient_norm", pa.float64()),
     ("learning_rate", pa.float64()), ("seconds", pa.float64())]
)  # fmt: skip
"""One row a step; `seconds` is the step's own wall time."""


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
        loss: step -> scalar loss, a function of the step alone.
        critic: trained by the same loss beside the model, at `critic_rate` times its learning rate.
        after_step: called after each update, for averages of the objective's own.
        extra: further modules that are saved and restored, by name.
    """

    label: str
    folder: Path
    fingerprint: str
    settings: OptimiserConfig
    model: nn.Module
    average: nn.Module
    loss: Callable[[int], Tensor]
    critic: nn.Module | None = None
    critic_rate: float = 1.0
    after_step: Callable[[], None] = lambda: None
    extra: Mapping[str, nn.Module] | None = None

    def __post_init__(self) -> None:
        settings = self.settings
        critic = {"critic": self.critic} if self.critic else {}
        self.modules = {"model": self.model, "average": self.average, **critic, **(self.extra or {})}
        groups = [{"params": list(self.model.parameters()), "share": 1.0}]
        groups += [{"params": list(module.parameters()), "share": self.critic_rate} for module in critic.values()]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, weight_decay=settings.weight_decay)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", self.fingerprint)
        self._events: list[dict[str, float]] = []

    def run(self) -> Iterator[Progress]:
        """Train from the newest checkpoint to the last step.

        Raises:
            DataError: the loss is not finite; the newest checkpoint stays as it is.
        """
        start = self._resume()
        total = self.settings.steps
        yield Progress(self.label, start, total, "steps", resumed=start)
        for step in range(start, total):
            event = self._step(step)
            self._events.append(event)
            if (step + 1) % self.settings.checkpoint_every == 0 or step + 1 == total:
                self._save(step + 1)
            counts = {name: event[name] for name in ("loss", "gradient_norm", "learning_rate")}
            yield Progress(self.label, step + 1, total, "steps", counts, start)

    def _step(self, step: int) -> dict[str, float]:
        began = time.perf_counter()
        rate = learning_rate(self.settings, step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        loss = self.loss(step)
        if not bool(torch.isfinite(loss)):
            raise DataError(
                f"{self.label}: the loss of step {step} is {loss.item()}; checkpoints in {self.folder} are intact: "
                "lower the learning rate and start another --run"
            )
        self.optimiser.zero_grad()
        loss.backward()
        norms = [
            nn.utils.clip_grad_norm_(group["params"], self.settings.clip_norm) for group in self.optimiser.param_groups
        ]
        self.optimiser.step()
        update_average(self.average, self.model, power_decay(step + 1, self.settings.ema_exponent))
        self.after_step()
        return {
            "step": step,
            "loss": loss.item(),
            "gradient_norm": norms[0].item(),
            "learning_rate": rate,
            "seconds": time.perf_counter() - began,
        }

    def _resume(self) -> int:
        latest = self.checkpoints.load_latest()
        if latest is None:
            return 0
        step, state = latest
        for name, module in self.modules.items():
            module.load_state_dict(state[name])
        self.optimiser.load_state_dict(state["optimiser"])
        return step

    def _save(self, step: int) -> None:
        first = int(self._events[0]["step"])
        table = pa.Table.from_pylist(self._events, schema=EVENTS)
        # Events go first: a crash in between repeats these steps and writes the same file again.
        commit_file(self.folder / "events" / f"from-{first:07d}.parquet", lambda path: pq.write_table(table, path))
        state: dict[str, Any] = {name: module.state_dict() for name, module in self.modules.items()}
        self.checkpoints.save(step, {**state, "optimiser": self.optimiser.state_dict()})
        self._events.clear()
