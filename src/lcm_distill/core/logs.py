"""Log files: one for each process of a run, written with the standard library's `logging`.

Modules log to `logging.getLogger(__name__)`. Nothing is written until a process calls `start_logging`; the terminal is
never written to.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "lcm_distill"
FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


@dataclass(frozen=True)
class LogSettings:
    """Where and how much a process logs. It is sent to workers, which log beside the process that started them.

    Attributes:
        folder: contains a file for each process.
        level: least severe level that is written, such as `logging.INFO`.
    """

    folder: Path
    level: int

    def start(self, worker: str) -> Path:
        """`start_logging` of a worker with these settings."""
        return start_logging(self.folder, worker, self.level)


_settings: LogSettings | None = None
_handler: logging.Handler | None = None


def start_logging(folder: Path, worker: str = "main", level: int | str = logging.INFO) -> Path:
    """Append everything the package logs in this process to `<folder>/<worker>.log`, which replaces an earlier file.

    Args:
        folder: created if absent.
        worker: `main`, `rank-N`, or the name of a worker.
        level: least severe level that is written: a number or a name such as `INFO`.

    Returns:
        The path of the file.

    Raises:
        ValueError: there is no such level.
        OSError: the file cannot be opened.
    """
    global _settings, _handler
    level = _number(level)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{worker}.log"
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    stop_logging()
    logger = logging.getLogger(PACKAGE)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False  # other libraries may have given the root logger a handler that writes to the terminal
    _settings, _handler = LogSettings(folder.absolute(), level), handler
    return path


class _LogFile(logging.FileHandler):
    """A log file whose device may be full: a message that cannot be written is lost, and nothing else is."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        del record

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _number(level: int | str) -> int:
    if isinstance(level, int):
        return level
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise ValueError(f"log level {level!r} is unknown: write one of {', '.join(levels)}")
    return levels[level.upper()]


def stop_logging() -> None:
    """Close this process's log file, if it has one."""
    global _settings, _handler
    if _handler is not None:
        logger = logging.getLogger(PACKAGE)
        logger.removeHandler(_handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
        _handler.close()
    _settings, _handler = None, None


def log_settings() -> LogSettings | None:
    """The settings of this process; None where it does not log."""
    return _settings
