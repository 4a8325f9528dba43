"""When a training must stop: a loss or gradient that is not finite, or a loss far above the usual."""

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from lcm_distill.core.errors import DataError
from lcm_distill.pipeline.atomic import commit_bytes

USUAL = 100
"""Losses that tell what is usual; with fewer nothing counts as a spike."""
REPORT = "stopped.json"


class Alarm:
    """Looks at every step before its update.

    Args:
        folder: where the report goes.
        spike: a loss may be so many times the median of the last `USUAL`; 0: as large as it likes.
        losses: of the steps before, if there were any.
    """

    def __init__(self, label: str, folder: Path, spike: float, losses: Iterable[float] = ()) -> None:
        self.label, self.folder, self.spike = label, folder, spike
        self.losses = deque(losses, USUAL)

    def complaint(self, loss: float, gradient_norm: float) -> str | None:
        """What is wrong with a step, in a few words; None and remembered if nothing is."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(gradient_norm):
            return f"the gradient's norm is {gradient_norm}"
        usual = median(self.losses) if self.losses else 0.0
        if self.spike and len(self.losses) == USUAL and loss > self.spike * usual:
            return f"the loss is {loss:.4g}, {loss / usual:.0f} times the usual {usual:.4g}"
        self.losses.append(loss)
        return None

    def stop(self, step: int, complaint: str, samples: Sequence[dict[str, Any]], report: bool) -> None:
        """End the training, and write which samples the step was made of if `report`.

        Raises:
            DataError: always; it says what to do.
        """
        path = self.folder / REPORT
        if report:
            commit_bytes(
                path, json.dumps({"step": step, "complaint": complaint, "samples": samples}, indent=1).encode()
            )
        rows = ", ".join(str(sample["row"]) for sample in samples[:4])
        raise DataError(
            f"{self.label}: in step {step} {complaint}; its samples are rows {rows} ..., all in {path}; "
            f"checkpoints in {self.folder} are intact: lower the learning rate and start another --run, or raise "
            "engine.spike if the loss is to be so"
        )
