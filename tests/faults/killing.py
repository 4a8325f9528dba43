"""Killing a command at one of its calls of the file system, and comparing what it leaves once it has been resumed.

A fault is `functools.partial` of a function here; it runs in the command's process before the command.
"""

import os
import re
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lcm_distill.pipeline import atomic_writes

CALLS = {
    "rename": ["replace", "rename"],
    "fsync": ["fsync"],
    "write": ["writev", "pwrite"],
    "unlink": ["unlink", "remove", "rmdir"],
    "mkdir": ["mkdir"],
}
"""Functions of `os` by kind of call."""

VOLATILE = {
    "seconds", "images_per_second", "memory_gib", "flop_utilisation",  # of events and of image sets: rates
    "seconds_per_image", "time", "commit",  # of metrics: rates, when and by which source they were computed
}  # fmt: skip
"""Columns of Parquet files that no two runs share, and no result depends on."""
VOLATILE_FILES = re.compile(r"logs/|.*/tensorboard/|report\.html$")
"""The page of a report shows times. Logs and TensorBoard's event files hold times; the latter have host, process id and
time in their names."""
MERGED = re.compile(r"merged\.[0-9a-f]{16}\.parquet")
"""Files of a compacted manifest have names that were never used before."""


def count_calls(folder: Path) -> None:
    """Count the calls of each kind, as bytes of a file for each."""
    write, files = os.write, {kind: os.open(folder / kind, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for kind in CALLS}
    for kind in CALLS:
        _at_each_call(kind, lambda after, kind=kind: None if after else write(files[kind], b"."))


def counted(folder: Path) -> dict[str, int]:
    """The numbers of calls that `count_calls` counted."""
    return {kind: (folder / kind).stat().st_size for kind in CALLS}


def kill_at(kind: str, number: int, after: bool, with_signal: int = signal.SIGKILL) -> None:
    """Kill the process at its call of this number, counted from 1: before it, or just after it."""
    calls = {False: 0, True: 0}

    def die(ended: bool) -> None:
        calls[ended] += 1
        if calls[ended] == number and ended == after:
            os.kill(os.getpid(), with_signal)

    _at_each_call(kind, die)


def _at_each_call(kind: str, do: Callable[[bool], object]) -> None:
    """Call `do(False)` before and `do(True)` after each call of a kind."""

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            do(False)
            result = real(*arguments, **options)
            do(True)
            return result

        return call

    for name in CALLS[kind]:
        setattr(os, name, wrapped(getattr(os, name)))
    if kind == "rename":  # of two folders at once: no function of `os`
        atomic_writes._exchange = wrapped(atomic_writes._exchange)


def tree(root: Path) -> dict[str, object]:
    """Every file below a folder with its content, or its rows without what is volatile."""
    files: Mapping[str, Path] = {
        str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()
    }
    return {
        MERGED.sub("merged.parquet", name): _content(path)
        for name, path in files.items()
        if not VOLATILE_FILES.match(name)
    }


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Names of the files that differ between two trees."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _content(path: Path) -> object:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        if volatile := VOLATILE.intersection(table.column_names):
            return table.drop_columns(sorted(volatile)).to_pylist()
    return path.read_bytes()


def kill_after(seconds: float, with_signal: int = signal.SIGKILL) -> None:
    """Send the process a signal, so many seconds from now."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), with_signal))
    timer.daemon = True
    timer.start()


def in_environment(variables: Mapping[str, str], fault: Callable[[], object] | None = None) -> None:
    """Set environment variables, then do what another fault does."""
    os.environ.update(variables)
    if fault is not None:
        fault()
