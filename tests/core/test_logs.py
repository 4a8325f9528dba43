"""Log files: one for each process, with everything the package logs and nothing on the terminal."""

import logging

import pytest

from lcm_distill.core.logs import LogSettings, log_settings, start_logging, stop_logging

log = logging.getLogger("lcm_distill.some.module")


@pytest.fixture(autouse=True)
def _stop():
    yield
    stop_logging()


def test_what_is_logged_is_in_the_file_and_not_on_the_terminal(tmp_path, capfd):
    path = start_logging(tmp_path / "logs", "rank-3")
    assert path == tmp_path / "logs" / "rank-3.log"
    log.debug("too detailed")
    log.warning("a %s", "warning")
    try:
        raise RuntimeError("out of luck")
    except RuntimeError:
        log.exception("it failed")
    text = path.read_text()
    assert "WARNING" in text and "lcm_distill.some.module: a warning" in text and "too detailed" not in text
    assert "Traceback" in text and "RuntimeError: out of luck" in text
    assert capfd.readouterr() == ("", "")


def test_level_is_chosen_by_name(tmp_path):
    path = start_logging(tmp_path, level="DEBUG")
    log.debug("detail")
    assert "detail" in path.read_text()
    assert log_settings() == LogSettings(tmp_path, logging.DEBUG)
    with pytest.raises(ValueError, match="LOUD"):
        start_logging(tmp_path, level="LOUD")


def test_another_file_takes_the_place_of_the_first_and_later_processes_append(tmp_path):
    first, second = start_logging(tmp_path / "a"), start_logging(tmp_path / "b")
    log.info("second")
    assert "second" not in first.read_text()
    start_logging(tmp_path / "b")
    log.info("third")
    assert [line.split(": ")[-1] for line in second.read_text().splitlines()] == ["second", "third"]


def test_without_a_file_nothing_is_written(tmp_path, capfd):
    assert log_settings() is None
    log.error("unheard")
    assert capfd.readouterr().err == ""
