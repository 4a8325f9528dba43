"""What the rows stand on: faults and kills reach commands in forked processes, and no row passes without trials."""

import os
import signal

import pytest

from tests.faults.commands import Command, lcm

pytest_plugins = ["pytester"]


def fail() -> None:
    raise RuntimeError("a fault")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_command_runs_in_a_process_of_its_own():
    ended = lcm("config", "presets")
    assert ended.is_clean(0) and "shapes" in ended.output


def test_a_refusal_is_clean_and_a_traceback_is_not(tmp_path):
    assert lcm("status", "--run", tmp_path / "none").is_clean(2)
    ended = lcm("config", "presets", fault=fail)
    assert ended.code == 1 and not ended.is_clean(1) and "a fault" in ended.errors


def test_a_killed_command_says_so():
    assert lcm("config", "presets", fault=die).code == -signal.SIGKILL
    assert Command("config", "presets").wait().code == 0


@pytest.mark.parametrize(("made", "outcome"), [(2, "passed"), (1, "failed")])
def test_a_row_with_fewer_trials_than_promised_fails(pytester, made, outcome):
    pytester.makepyfile(
        f"""
        import pytest
        from tests.faults.conftest import trials

        @pytest.mark.trials(full=5, sample=2)
        def test_row(trials):
            "A row."
            for _ in range({made}):
                trials.count("fine")
        """
    )
    pytester.makeconftest("from tests.conftest import pytest_addoption, pytest_terminal_summary")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "ignore")
    assert ("| A row | 2 | 2 fine |" in result.stdout.str()) == (outcome == "passed")
    assert result.ret == (0 if outcome == "passed" else 1)


@pytest.mark.parametrize("needs", ["", ", device"])
def test_a_row_that_is_skipped_counts_nothing_and_passes(pytester, needs):
    """By the test itself, or by a fixture of it that is made after its trials."""
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.fixture
        def device():
            pytest.skip("needs root")

        @pytest.mark.trials(full=5, sample=2)
        def test_row(trials{needs}):
            pytest.skip("needs root")
        """
    )
    pytester.makeconftest(
        "from tests.conftest import pytest_addoption, pytest_terminal_summary\n"
        "from tests.faults.conftest import pytest_runtest_makereport, trials"
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "ignore")
    result.assert_outcomes(skipped=1)
    assert result.ret == 0
