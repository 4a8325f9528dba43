"""GPUs that are not there."""

from collections.abc import Callable

import pytest

from tests.cuda.double import Gpus, Groups


@pytest.fixture
def gpus(monkeypatch) -> Callable[..., Gpus]:
    """So many GPUs, until the test ends: `gpus(2)`."""
    return lambda count, **properties: Gpus(count, **properties).install(monkeypatch)


@pytest.fixture
def groups(monkeypatch) -> Groups:
    return Groups().install(monkeypatch)
