"""Where the figures of every step go: Parquet always, TensorBoard and Weights & Biases if asked for."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.config import EngineConfig
from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.atomic import commit_file

EVENTS = pa.schema(
    [("step", pa.int64()), ("loss", pa.float64()), ("gradient_norm", pa.float64()),
     ("learning_rate", pa.float64()), ("seconds", pa.float64()), ("images_per_second", pa.float64()),
     ("flop_utilisation", pa.float64()), ("memory_gib", pa.float64())]
)  # fmt: skip
"""One row a step; `seconds` is the step's own wall time. `flop_utilisation` is the share of the devices' peak that the
networks' own operations make, null where the peak is not known; `memory_gib` the most that the first rank held."""


class Board(Protocol):
    """Shows figures and images by step, elsewhere."""

    def figures(self, step: int, values: Mapping[str, float | None]) -> None: ...
    def image(self, step: int, name: str, pixels: np.ndarray) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class Events:
    """What happens in a training. Steps count from 0; validations count the steps that were done before them."""

    def __init__(self, folder: Path, settings: EngineConfig, start: int) -> None:
        self.table = ParquetEvents(folder / "events")
        self.boards: list[Board] = []
        if settings.tensorboard:
            self.boards.append(TensorBoard(folder / "tensorboard", start))
        if settings.wandb is not None:
            self.boards.append(Wandb(folder, settings.wandb))

    def stepped(self, step: int, values: Mapping[str, float | None]) -> None:
        """A step is done; `values` has the columns of `EVENTS`."""
        self.table.add(step, values)
        for board in self.boards:
            board.figures(step, values)

    def validated(self, step: int, distances: Mapping[str, float], grid: np.ndarray) -> None:
        """Args: grid: uint8 (H, W, 3)."""
        for board in self.boards:
            board.figures(step, distances)
            board.image(step, "validation", grid)

    def flush(self) -> None:
        """Commit the steps since the last time."""
        self.table.flush()
        for board in self.boards:
            board.flush()

    def close(self) -> None:
        """Nothing more will be told. Steps that were not flushed belong to no checkpoint, and are left out."""
        for board in self.boards:
            board.close()


class ParquetEvents:
    """A file for every stretch between two checkpoints, named by its first step."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._rows = folder, list[dict[str, Any]]()

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        self._rows.append({"step": step, **values})

    def flush(self) -> None:
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=EVENTS)
            path = self.folder / f"from-{self._rows[0]['step']:07d}.parquet"
            commit_file(path, lambda temporary: pq.write_table(table, temporary))
            self._rows.clear()


def recorded_losses(folder: Path, before: int, count: int) -> list[float]:
    """The last losses before a step, as Parquet events have them."""
    losses: list[float] = []
    for path in sorted((folder / "events").glob("from-*.parquet"), reverse=True):
        if int(path.stem.removeprefix("from-")) < before and len(losses) < count:
            rows = pq.read_table(path, columns=["step", "loss"]).to_pylist()
            losses = [row["loss"] for row in rows if row["step"] < before] + losses
    return losses[-count:]


class TensorBoard:
    """TensorBoard's files; steps that are repeated after an interruption replace those before it."""

    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(folder, purge_step=start or None)

    def figures(self, step: int, values: Mapping[str, float | None]) -> None:
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases, whose run goes on when the training does."""

    def __init__(self, folder: Path, project: str) -> None:
        if find_spec("wandb") is None:
            raise UserError(f"engine.wandb is {project!r}, but wandb is not installed: pip install wandb, or unset it")
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb = wandb
        run = folder.resolve().parent.name
        self._run = wandb.init(project=project, name=run, id=f"{run}-{folder.name}", resume="allow", dir=folder)

    def figures(self, step: int, values: Mapping[str, float | None]) -> None:
        self._run.log({name: value for name, value in values.items() if value is not None}, step=step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._run.log({name: self._wandb.Image(pixels)}, step=step)

    def flush(self) -> None:
        pass  # it sends by itself

    def close(self) -> None:
        self._run.finish()
