"""A folder of log files."""

import pytest

from lcm_distill.core.logs import start_logging, stop_logging


@pytest.fixture
def logs(tmp_path):
    """The folder that this process logs to, as `main`."""
    start_logging(tmp_path / "logs")
    yield tmp_path / "logs"
    stop_logging()
