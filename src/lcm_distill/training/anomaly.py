"""Detects steps that must stop a training: a loss or gradient that is not finite, or a spike of the loss."""

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

from lcm_distill.core.errors import DataError
from lcm_distill.pipeline.atomic_writes import commit_bytes

HISTORY = 100
"""Number of recent losses whose median is the usual loss; with fewer, no loss counts as a spike."""
REPORT = "stopped.json"
LOWER_RATE = "lower the learning rate and start another --run, or raise engine.spike if such a loss is expected"
"""What helps against most anomalies."""
RESUME = "the same command resumes from the last; should it stop here again, lower the learning rate in another --run"
"""What helps where weights were spoilt and losses were not."""
ENCODE_AGAIN = "make the cache again in another --run, with encoders.dtype=float32"
"""What helps where samples are not finite."""


class AnomalyDetector:
    """Checks every step before its update.

    Args:
        label: what is trained, for messages.
        folder: where the report goes.
        spike: the largest allowed ratio of a loss to the median of the last `HISTORY`; 0 allows any finite loss.
        losses: of earlier steps, oldest first.
    """

    def __init__(self, label: str, folder: Path, spike: float, losses: Iterable[float] = ()) -> None:
        self.label, self.folder, self.spike = label, folder, spike
        self.losses = deque(losses, HISTORY)

    def check(self, loss: float, gradient_norm: float) -> str | None:
        """A short description of what is wrong with a step; None for a sound step, whose loss is then remembered."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(gradient_norm):
            return f"the gradient's norm is {gradient_norm}"
        usual = median(self.losses) if self.losses else 0.0
        if self.spike and len(self.losses) == HISTORY and loss > self.spike * usual:
            return f"the loss is {loss:.4g}, {loss / usual:.0f} times the usual {usual:.4g}"
        self.losses.append(loss)
        return None

    def stop(
        self, step: int, anomaly: str, samples: Sequence[dict[str, Any]], report: bool, remedy: str = LOWER_RATE
    ) -> NoReturn:
        """End the training with an error.

        Args:
            anomaly: as `check` describes it.
            samples: `row` and `source` of each sample of the step.
            report: write `stopped.json` with the step's samples; one rank should.
            remedy: what can be done about it.

        Raises:
            DataError: always; the message names the step, its samples and a remedy.
        """
        path = self.folder / REPORT
        if report:
            content = json.dumps({"step": step, "complaint": anomaly, "samples": samples}, indent=1)
            commit_bytes(path, content.encode())
        rows = ", ".join(str(sample["row"]) for sample in samples[:4])
        raise DataError(
            f"{self.label}: in step {step} {anomaly}; its samples are rows {rows} ..., all in {path}; "
            f"checkpoints in {self.folder} are intact: {remedy}"
        )
