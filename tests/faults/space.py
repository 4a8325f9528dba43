"""Devices that refuse to be written to, for commands in processes of their own."""

import builtins
import errno
import io
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

CALLS = ("writev", "fsync", "mkdir", "replace", "rename")


def refuse_from(place: str, first: int, code: int, once: bool, counted: str) -> None:
    """From its `first` write of any kind below `place` on, this process gets the error `code`.

    Args:
        once: only that one is refused.
        counted: file that gets the number of writes.
    """
    count = 0
    report = os.open(counted, os.O_WRONLY | os.O_CREAT)

    def met(target: Any) -> None:
        nonlocal count
        path = Path(f"/proc/self/fd/{target}" if isinstance(target, int) else os.fsdecode(target))
        if not str(path.resolve()).startswith(place):
            return
        count += 1
        os.pwrite(report, b"%d" % count, 0)
        if count == first or (count > first and not once):
            named = () if isinstance(target, int) else (str(path),)  # as the system does
            raise OSError(code, os.strerror(code), *named)

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def guard(target: Any, *args: Any, **options: Any) -> Any:
            met(target)
            return call(target, *args, **options)

        return guard

    def guarded_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode) & set("wxa+"):
            met(file)
        return plain_open(file, mode, *args, **options)

    plain_open = io.open
    io.open = builtins.open = guarded_open
    for name in CALLS:
        setattr(os, name, guarded(getattr(os, name)))


def limit_files(size: int) -> None:
    """No file of this process can grow beyond a size in bytes: native code meets that as well."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def refusing(place: Path, first: int, code: int = errno.ENOSPC, once: bool = False) -> partial[None]:
    """A fault for `tests.faults.commands`: `refuse_from` with the count in `counted_beside(place)`."""
    return partial(refuse_from, str(place.resolve()), first, code, once, str(counted_beside(place)))


def counted_beside(place: Path) -> Path:
    """Where `refusing` counts."""
    return place.with_name(f"{place.name}.count")


class Device:
    """A file system in memory of a few kilobytes, mounted at a folder while the block runs.

    Args:
        place: the folder; it is made.
        size: in bytes.
    """

    def __init__(self, place: Path, size: int) -> None:
        self.place, self.size = place, size

    def __enter__(self) -> "Device":
        self.place.mkdir()
        mount(["-t", "tmpfs", "-o", f"size={self.size}", "none", str(self.place)])
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.place)], check=True)

    def grow(self, size: int) -> None:
        """Give it another size."""
        mount(["-o", f"remount,size={size}", str(self.place)])


def mount(words: list[str]) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def why_no_device(folder: Path) -> str | None:
    """Why this user cannot mount a `Device` below a folder; None if that can be done."""
    if os.geteuid() != 0:
        return "mounting a small file system needs root; refused writes and limited files are tried by every user"
    if shutil.which("mount") is None:
        return "there is no `mount`"
    try:
        with Device(folder / "tried", 1 << 20):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"root may not mount a file system here: {error}"
