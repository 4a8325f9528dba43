"""Work for executors that takes no time and may kill whoever does it."""

import os
import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pyarrow as pa

from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.executors.work import Execute, Open
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Task

COLUMNS = pa.schema([("row", pa.int64()), ("status", pa.string())])
TASKS = [Task(f"t{number:02d}", f"print{number}", {"number": number}) for number in range(20)]


def manifest_in(root: Path) -> Manifest:
    return Manifest(LocalStorage(root), COLUMNS)


def work_in(root: Path) -> Open:
    return partial(_open, root)


def doom(root: Path, task: Task, how: str, times: int = 1) -> None:
    """Whoever takes the task up meets `how`, so often."""
    (root / "dooms").mkdir(exist_ok=True)
    for number in range(times):
        (root / "dooms" / f"{task.name}.{how}.{number}").touch()


def _open(root: Path, device: str | None) -> Execute:
    return partial(_execute, root)


def _execute(root: Path, tasks: Iterable[Task]):
    for task in tasks:
        _meet_fate(root, task)
        number = task.inputs["number"]
        file = LocalStorage(root).put(f"shards/{number}", [bytes(range(number))])
        yield task, [{"row": number, "status": "ok"}], file


def _meet_fate(root: Path, task: Task) -> None:
    for fate in (root / "dooms").glob(f"{task.name}.*"):
        fate.unlink()
        match fate.name.split(".")[1]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "bug":
                raise RuntimeError("out of luck")
            case "user":
                raise UserError("the VAE is missing: put it there")


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "shards").iterdir()}


EXPECTED = {str(number): bytes(range(number)) for number in range(20)}
