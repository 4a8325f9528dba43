"""Ctrl-C in a query ends a command as it does elsewhere."""

import threading
import time

import duckdb
import pytest

from lcm_distill.core.interruption import queries_interrupted


def test_an_interrupted_query_is_an_interrupted_command():
    connection = duckdb.connect()
    stop = threading.Timer(0.3, connection.interrupt)
    stop.start()
    with pytest.raises(KeyboardInterrupt), queries_interrupted():
        while time.monotonic():
            connection.execute("SELECT sum(a.range * b.range) FROM range(100000) a, range(100000) b").fetchall()
    stop.join()


@pytest.mark.parametrize(
    "error", [RuntimeError("Query interrupted"), duckdb.InterruptException("INTERRUPT: Interrupted!")]
)
def test_both_of_its_errors_are_known(error):
    with pytest.raises(KeyboardInterrupt), queries_interrupted():
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), ValueError("interrupted"), duckdb.BinderException("x")]
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)), queries_interrupted():
        raise error
