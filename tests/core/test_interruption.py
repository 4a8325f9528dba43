"""Ctrl-C and SIGTERM are noted where a step must end first; Ctrl-C in a query ends a command as elsewhere."""

import signal
import threading
import time

import duckdb
import pytest

from lcm_distill.core.interruption import NOTICES, Signals, Stopped, queries_interrupted, stop_at_once


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


@pytest.fixture
def terminable():
    """SIGTERM ends this process as a command."""
    before = signal.signal(signal.SIGTERM, stop_at_once)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_said_once(capfd, terminable, number):
    signals = Signals()
    with signals:
        assert signals.noted is None
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert signals.noted == number
    said = capfd.readouterr().err
    assert said.encode() == NOTICES[number] and ("Ctrl-C" in said) == (number == signal.SIGINT)
    with signals:
        assert signals.noted is None


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_a_signal_is_obeyed(capfd, terminable, first):
    with pytest.raises(KeyboardInterrupt), Signals():
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGINT)


def test_after_the_block_signals_end_commands_again(terminable):
    with Signals():
        pass
    with pytest.raises(Stopped, match="stopped by SIGTERM; the same command resumes") as stopped:
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.exit_code == 143


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_notes_nothing():
    def block() -> None:
        with Signals():
            handlers.append(signal.getsignal(signal.SIGINT))

    handlers: list[object] = []
    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]
