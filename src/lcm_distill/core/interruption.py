"""Ctrl-C during a query of DuckDB, which reports it as an error of its own."""

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def queries_interrupted() -> Generator[None]:
    """Ctrl-C is a `KeyboardInterrupt` within the block, as everywhere else.

    Raises:
        KeyboardInterrupt: DuckDB was interrupted.
    """
    try:
        yield
    except Exception as error:  # `duckdb.InterruptException`, or a RuntimeError where it is met while rows are fetched
        if "interrupted" in str(error).lower() and type(error).__name__ in ("InterruptException", "RuntimeError"):
            raise KeyboardInterrupt from error
        raise
