"""Ctrl-C and SIGTERM: noted while a step of a training runs, and told apart from errors of DuckDB."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NOTICES = {
    signal.SIGINT: b"\nlcm: stopping after this step, whose checkpoint is saved; Ctrl-C again stops at once\n",
    signal.SIGTERM: b"\nlcm: stopping by SIGTERM after this step, whose checkpoint is saved; SIGINT stops at once\n",
}
"""What is said when each signal is noted; the first begins a line of its own after the terminal's `^C`."""


class Stopped(KeyboardInterrupt):
    """A signal has ended the work.

    Attributes:
        exit_code: 128 and the signal's number, as shells have it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def stop_at_once(number: int, frame: FrameType | None = None) -> None:
    """Handler of a signal that ends a command as Ctrl-C does.

    Raises:
        Stopped: always.
    """
    raise Stopped(f"stopped by {signal.Signals(number).name}; the same command resumes from here", number)


class Signals:
    """Notes Ctrl-C and SIGTERM while a block runs, which ends when it can; a second Ctrl-C ends it at once.

    Signals that are ignored stay ignored. Only the main thread notes any.

    Attributes:
        noted: number of the first signal; None without one.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> None:
        self.noted = None
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: of another language's code
                self._handlers[number] = signal.signal(number, self._note)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted is not None:
            return
        self.noted = number
        if signal.SIGINT in self._handlers:
            signal.signal(signal.SIGINT, self._handlers[signal.SIGINT])
        os.write(2, NOTICES[signal.Signals(number)])  # no buffer, in whose use the signal may have come


@contextmanager
def queries_interrupted() -> Generator[None]:
    """Ctrl-C is a `KeyboardInterrupt` within the block, as everywhere else.

    Raises:
        KeyboardInterrupt: DuckDB was interrupted.
    """
    import duckdb

    try:
        yield
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except RuntimeError as error:  # where it is met while rows are fetched
        if "Query interrupted" not in str(error):
            raise
        raise KeyboardInterrupt from error
