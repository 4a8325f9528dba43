# pyarrow, TensorBoard and wandb ship no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""Records of every step: Parquet files, and TensorBoard and Weights & Biases where they are configured."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from lcm_distill.config import EngineConfig
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.io_errors import naming_file
from lcm_distill.pipeline.atomic_writes import commit_bytes
from lcm_distill.pipeline.hashed_parquet import encode_table, read_table
from lcm_distill.training.health import FIGURES

DAMAGED = "delete it; only the records of its steps are lost"
"""What to do about a damaged file of records."""

EVENTS = pa.schema(
    [("step", pa.int64()), ("loss", pa.float64()), ("gradient_norm", pa.float64()),
     ("learning_rate", pa.float64()), ("seconds", pa.float64()), ("images_per_second", pa.float64()),
     ("flop_utilisation", pa.float64()), ("memory_gib", pa.float64()), ("objective_loss", pa.float64()),
     ("critic_loss", pa.float64()), ("matching_loss", pa.float64()), ("response_loss", pa.float64()),
     ("discriminator_loss", pa.float64()), ("adversarial_loss", pa.float64()),
     *((name, pa.float64()) for name in FIGURES)]
)  # fmt: skip
"""One row a step; `seconds` is its wall time. `flop_utilisation` is the rate of the networks' operations, without
recomputation, over the devices' peak, null where that is not known; `memory_gib` is rank 0's peak memory so far. Where
a distillation has several terms, `loss` is the sum of those called `..._loss`, each with its weight. For the figures of
its health see `health.FIGURES`. What a step does not have is null."""


class Logger(Protocol):
    """A logger of scalars and images by step."""

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Log values of a step by name; None is left out."""
        ...

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Log an image uint8 (H, W, 3)."""
        ...

    def flush(self) -> None:
        """Write out what was logged."""
        ...

    def close(self) -> None:
        """Write out what was logged, and end."""
        ...


class Events:
    """The records of one training, written by rank 0.

    Steps count from 0; a validation is recorded under the number of steps completed before it.

    Args:
        folder: of the training.
        start: number of steps completed before this process, whose records are kept.
        every: number of steps between two checkpoints.

    Raises:
        UserError: Weights & Biases is configured and not installed.
    """

    def __init__(self, folder: Path, settings: EngineConfig, start: int, every: int) -> None:
        self.table = ParquetEvents(folder / "events", start, every)
        self.loggers: list[Logger] = []
        if settings.tensorboard:
            self.loggers.append(TensorBoard(folder / "tensorboard", start))
        if settings.wandb is not None:
            self.loggers.append(Wandb(folder, settings.wandb))

    def add_step(self, step: int, values: Mapping[str, float | None]) -> None:
        """Record a completed step; `values` has columns of `EVENTS`, and no others."""
        self.table.add(step, values)
        for logger in self.loggers:
            logger.scalars(step, values)

    def add_validation(self, step: int, values: Mapping[str, float], grid: np.ndarray) -> None:
        """Send a validation's metrics, and its images as a grid uint8 (H, W, 3), to the loggers."""
        for logger in self.loggers:
            logger.scalars(step, values)
            logger.image(step, "validation", grid)

    def flush(self) -> None:
        """Commit the steps since the last flush."""
        self.table.flush()
        for logger in self.loggers:
            logger.flush()

    def close(self) -> None:
        """Close the loggers. Steps since the last flush belong to no checkpoint and are not written to Parquet."""
        for logger in self.loggers:
            logger.close()


class ParquetEvents:
    """One Parquet file for the steps between two checkpoints, named by its first step.

    The file that a training left when it was stopped between them is completed.

    Args:
        start, every: as `Events` takes them.

    Raises:
        DataError: that file is damaged.
    """

    def __init__(self, folder: Path, start: int, every: int) -> None:
        self.folder, self._rows = folder, _recorded_since(folder, start - start % every, start)

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        """Remember a step's row until the next flush."""
        self._rows.append({"step": step, **values})

    def flush(self) -> None:
        """Commit the rows since the last flush as one file."""
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=EVENTS)
            commit_bytes(_file(self.folder, self._rows[0]["step"]), encode_table(table))
            self._rows.clear()


def _file(folder: Path, first: int) -> Path:
    return folder / f"from-{first:07d}.parquet"


def _recorded_since(folder: Path, first: int, start: int) -> list[dict[str, Any]]:
    """The rows of all steps from `first` to before `start`, if one file has them; else none."""
    path = _file(folder, first)
    if first == start or not path.is_file():
        return []
    rows = [row for row in read_events(path) if row["step"] < start]
    return rows if len(rows) == start - first else []


def read_events(path: Path) -> list[dict[str, Any]]:
    """Rows of one file of records.

    Raises:
        DataError: it is damaged, or another one's content.
    """
    rows = read_table(path, DAMAGED).to_pylist()
    if not rows or path.stem != f"from-{rows[0]['step']:07d}":
        raise DataError(f"{path} does not hold the steps that its name says: {DAMAGED}")
    return rows


def recorded_losses(folder: Path, before: int, count: int) -> list[float]:
    """The last `count` recorded losses before a step, oldest first; fewer if there are not so many."""
    losses: list[float] = []
    for path in sorted((folder / "events").glob("from-*.parquet"), reverse=True):
        if int(path.stem.removeprefix("from-")) < before and len(losses) < count:
            rows = read_events(path)
            losses = [row["loss"] for row in rows if row["step"] < before] + losses
    return losses[-count:]


def last_loss(folder: Path) -> float | None:
    """The last recorded loss of a training; None without a record.

    Raises:
        DataError: the record is damaged.
    """
    events = sorted((folder / "events").glob("*.parquet"))
    return read_events(events[-1])[-1]["loss"] if events else None


class TensorBoard:
    """TensorBoard event files; steps repeated after an interruption replace the earlier ones."""

    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._folder = folder
        with naming_file(folder):
            self._writer = SummaryWriter(folder, purge_step=start or None)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Log values of a step by name; None is left out."""
        with naming_file(self._folder):
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Log an image uint8 (H, W, 3)."""
        with naming_file(self._folder):
            self._writer.add_image(name, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Write out what was logged."""
        with naming_file(self._folder):
            self._writer.flush()

    def close(self) -> None:
        """Write out what was logged, and end."""
        with naming_file(self._folder):
            self._writer.close()


class Wandb:
    """A Weights & Biases run, which is continued when the training is resumed."""

    def __init__(self, folder: Path, project: str) -> None:
        if find_spec("wandb") is None:
            raise UserError(f"engine.wandb is {project!r}, but wandb is not installed: pip install wandb, or unset it")
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb = wandb
        run = folder.resolve().parent.name
        self._run = wandb.init(project=project, name=run, id=f"{run}-{folder.name}", resume="allow", dir=folder)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Log values of a step by name; None is left out."""
        self._run.log({name: value for name, value in values.items() if value is not None}, step=step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Log an image uint8 (H, W, 3)."""
        self._run.log({name: self._wandb.Image(pixels)}, step=step)

    def flush(self) -> None:
        """Do nothing: wandb sends by itself."""
        pass  # wandb uploads in the background

    def close(self) -> None:
        """Send what was logged, and end."""
        self._run.finish()
