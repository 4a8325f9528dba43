"""Rows of the reliability table: `make test-faults` makes all trials, `make test` a few of each row."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TRIED
from tests.faults.trainings import begin
from tests.faults.trials import Trials

SKIPPED = pytest.StashKey[bool]()
LONG = (
    "test_damage_is_found_or_changes_nothing", "test_trainings", "test_results", "test_keys", "test_ranks",
    "test_caches", "test_started_together", "test_nan", "test_a_refused_write_is_one_line_and_the_command_resumes",
    "test_a_full_device_is_one_line_and_the_command_resumes", "test_damage_of_settings_and_checkpoints",
    "test_a_store_that_fails_stores_nothing_wrong", "test_wrong_use_is_refused_in_one_line",
)  # fmt: skip
"""Rows that take minutes, the longest ones first."""
ROW_SECONDS = 3600
"""After which a row has failed, also beside other work."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the long rows, so that no process is left alone with one at the end, and give them time."""
    if config.getoption("all_trials"):
        for item in items:
            item.add_marker(pytest.mark.timeout(ROW_SECONDS))
        items.sort(key=lambda item: LONG.index(item.name) if item.name in LONG else len(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Remember a row that was skipped, such as one that needs root: it has no trials to count."""
    report = yield
    item.stash[SKIPPED] = item.stash.get(SKIPPED, False) or report.skipped
    return report


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Iterator[Trials]:
    """The trials of a test marked `trials(full=..., sample=...)`, whose docstring's first line is the row's title."""
    marker = request.node.get_closest_marker("trials")
    number = marker.kwargs["full" if request.config.getoption("all_trials") else "sample"]
    made = Trials(request.node.nodeid.partition("::")[2], number)
    yield made
    if request.node.stash.get(SKIPPED, False):
        return
    assert made.made >= number > 0, f"{made.made} of {number} trials were counted"
    title = (request.node.obj.__doc__ or made.row).splitlines()[0].rstrip(".")
    request.node.user_properties.append((TRIED, f"| {title} | {made.made} | {made.summary()} |"))


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose cache is made, to be copied."""
    return begin(tmp_path_factory.mktemp("encoded") / "run", "precompute")
