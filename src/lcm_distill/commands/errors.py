"""How a command ends: one line and an exit code for what a user can cause, 130 for Ctrl-C, 143 for SIGTERM."""

import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from types import TracebackType

from lcm_distill.core.errors import StorageError, UserError
from lcm_distill.core.interruption import Stopped
from lcm_distill.core.io_errors import NO_SPACE, describe
from lcm_distill.core.printable_text import one_line

log = logging.getLogger(__name__)

INTERRUPTED = "interrupted; the same command resumes from here"
SIGPIPE_EXIT_CODE = 141
"""Of a command whose output nobody reads any more, as shells have it."""


class one_line_errors:
    """Ends the process with one line on standard error for an error that a user can cause."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            error = _flush()
        elif isinstance(error, OSError) and error.filename is None and error.errno in NO_SPACE:
            error = _flush(more="\n") or error  # perhaps printing met it, which names nothing
        if isinstance(error, UserError):
            _end(str(error), error.exit_code)
        if isinstance(error, KeyboardInterrupt):
            stopped = error if isinstance(error, Stopped) else Stopped(INTERRUPTED, signal.SIGINT)
            say(str(stopped))
            sys.stderr.flush()
            os._exit(stopped.exit_code)  # threads of native libraries would delay an ordinary exit
        if isinstance(error, BrokenPipeError):
            _discard_output()
            raise SystemExit(SIGPIPE_EXIT_CODE) from None
        if isinstance(error, OSError):
            _end(describe(error), StorageError.exit_code)


def log_thread_error(failure: threading.ExceptHookArgs) -> None:
    """Log what the file system refused to a thread of a library, which tells whoever uses it; print other errors."""
    if isinstance(failure.exc_value, OSError):
        log.warning("a thread ended: %s", failure.exc_value, exc_info=failure.exc_value)
    else:
        threading.__excepthook__(failure)


def say(message: str) -> None:
    """Print one line on standard error."""
    with suppress(OSError):  # it may be a file on the device that is full
        print(f"lcm: {one_line(message)}", file=sys.stderr)


def _end(message: str, code: int) -> None:
    say(message)
    raise SystemExit(code) from None


def _flush(more: str = "") -> OSError | None:
    """Write what was printed, and more; the error if it cannot be."""
    try:
        sys.stdout.write(more)
        sys.stdout.flush()
    except OSError as error:
        _discard_output()
        return error if isinstance(error, BrokenPipeError) else OSError(error.errno, error.strerror, "standard output")
    return None


def _discard_output() -> None:
    """Let the interpreter write what is left of the output to nowhere when it ends, rather than fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
