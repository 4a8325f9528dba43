"""Ctrl-C during a query of DuckDB, which reports it as an error of its own."""

from collections.abc import Generator
from contextlib import contextmanager


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
