"""The command line in processes that start in milliseconds: forked from one that has imported everything.

A process can be given a fault, a function that is called before the command, and can be killed at any time.
"""

import io
import multiprocessing
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import mkdtemp

PRELOADED = ["lcm_distill.cli", "tests.faults.imports"]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal that killed it), and what it printed."""

    code: int
    output: str
    errors: str

    def is_clean(self, *codes: int) -> bool:
        """Whether it ended with one of `codes` and without a traceback; a refusal has one line."""
        refused = self.code == 0 or self.errors.strip().rpartition("\n")[2].startswith("lcm: ")
        return self.code in codes and "Traceback" not in self.output + self.errors and refused


class Command:
    """A running command.

    Args:
        words: the command line after `lcm`.
        fault: called in the new process before the command; must be importable by name (a function of a module, or
            `functools.partial` of one).
    """

    def __init__(self, *words: object, fault: Callable[[], object] | None = None) -> None:
        self._folder = Path(mkdtemp())
        self._printed = self._folder / "output", self._folder / "errors"
        arguments = [str(word) for word in words], fault, *map(str, self._printed)
        self.process: BaseProcess = _context().Process(target=_run, args=arguments)
        self.process.start()

    def kill(self) -> None:
        """End it by SIGKILL, as the kernel does when memory runs out."""
        self.process.kill()

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def wait(self, seconds: float = 120) -> Ended:
        """How it ended.

        Raises:
            TimeoutError: it has not after `seconds`; it is killed.
        """
        self.process.join(seconds)
        if self.process.is_alive():
            self.kill()
            shutil.rmtree(self._folder)
            raise TimeoutError(f"still running after {seconds} s")
        code = self.process.exitcode
        assert code is not None
        output, errors = (path.read_text(errors="replace") if path.exists() else "" for path in self._printed)
        shutil.rmtree(self._folder)
        return Ended(code, output, errors)


def lcm(*words: object, fault: Callable[[], object] | None = None, seconds: float = 120) -> Ended:
    """How `lcm` with these words ends in a process of its own; other arguments as `Command` and its `wait`."""
    return Command(*words, fault=fault).wait(seconds)


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _run(words: list[str], fault: Callable[[], object] | None, output: str, errors: str) -> None:
    # Files, not pipes: a killed process leaves what it printed, and descriptors 1 and 2 catch native code as well.
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    out, err = (io.TextIOWrapper(io.FileIO(number, "w", closefd=False), write_through=True) for number in (1, 2))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            if fault is not None:
                fault()
            from lcm_distill.cli import main

            sys.argv = ["lcm", *words]
            main()
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)
        except BaseException:
            traceback.print_exc(file=err)
            os._exit(1)
    os._exit(0)
