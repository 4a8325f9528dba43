"""Work for executors that takes no time and may fail or kill its worker."""

import os
import signal
import socket
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pyarrow as pa

from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.executors.interface import Execute, Open
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Task

COLUMNS = pa.schema([("row", pa.int64()), ("status", pa.string())])
TASKS = [Task(f"t{number:02d}", f"print{number}", {"number": number}) for number in range(20)]


def manifest_in(root: Path) -> Manifest:
    return Manifest(LocalStorage(root), COLUMNS)


def work_in(root: Path) -> Open:
    return partial(_open, root)


def fail_at(root: Path, task: Task, how: str, times: int = 1) -> None:
    """The next `times` executions of the task end by `how`: `kill`, `bug` or `user` (error)."""
    (root / "failures").mkdir(exist_ok=True)
    for number in range(times):
        (root / "failures" / f"{task.name}.{how}.{number}").touch()


def _open(root: Path, device: str | None) -> Execute:
    return partial(_execute, root)


def _execute(root: Path, tasks: Iterable[Task]):
    for task in tasks:
        _fail_as_marked(root, task)
        number = task.inputs["number"]
        file = LocalStorage(root).put(f"shards/{number}", [bytes(range(number))])
        yield task, [{"row": number, "status": "ok"}], file


def _fail_as_marked(root: Path, task: Task) -> None:
    for failure in (root / "failures").glob(f"{task.name}.*"):
        failure.unlink()
        match failure.name.split(".")[1]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "bug":
                raise RuntimeError("out of luck")
            case "user":
                raise UserError("the VAE is missing: put it there")


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "shards").iterdir()}


EXPECTED = {str(number): bytes(range(number)) for number in range(20)}


def assert_traceback_is_logged(logs: Path) -> None:
    """One worker's log file has the traceback of a failure that was marked as `bug`."""
    texts = {path.stem: path.read_text() for path in logs.glob("*.log") if path.stem != "main"}
    failed = [name for name, text in texts.items() if "worker failure" in text]
    assert len(failed) == 1 and failed[0].startswith(socket.gethostname())
    assert "Traceback (most recent call last)" in texts[failed[0]] and "in _fail_as_marked" in texts[failed[0]]
    assert "RuntimeError: out of luck" in texts[failed[0]]
