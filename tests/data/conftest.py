"""A small data set that may change."""

import pytest

from tests.growing import Data, Means


@pytest.fixture
def means(monkeypatch):
    monkeypatch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", Means)


@pytest.fixture
def data(tmp_path, means):
    made = Data(tmp_path)
    for number in range(6):
        made.add(f"m{number}", f"caption {number}", number)
    return made
