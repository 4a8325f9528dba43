"""Precision, recall, density and coverage on sets whose balls can be drawn by hand."""

import pytest
import torch

from lcm_distill.metrics.neighbours import coverage, density, precision, recall

REAL = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]])


def at(*positions):
    return torch.tensor(positions).unsqueeze(1)


def test_same_sets_cover_each_other():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    assert (precision(x, x), recall(x, x), coverage(x, x)) == (1, 1, 1)


def test_sets_apart_do_not():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    assert (precision(x, x + 50), recall(x, x + 50), density(x, x + 50), coverage(x, x + 50)) == (0, 0, 0, 0)


def test_by_hand():
    # With k = 1 the balls of 0 ... 3 reach 1 far, that of 100 reaches 97 far.
    generated = at(0.5, 2.5, 3.5, -9.0)
    assert precision(generated, REAL, k=1) == 3 / 4  # -9 lies in no ball
    # 0.5 lies in the balls of 0 and 1, 2.5 in those of 2 and 3, 3.5 in those of 3 and 100 (and -9 in none).
    assert density(generated, REAL, k=1) == 6 / 4
    assert coverage(generated, REAL, k=1) == 1  # 100's ball holds 3.5
    # Generated balls reach 2, 1, 1 and 9.5: they hold 0, 1, 2 (by 0.5's), 2, 3 (by 2.5's), 3 (by 3.5's), 0 (by -9's).
    assert recall(generated, REAL, k=1) == pytest.approx(4 / 5)


def test_blocks_make_no_difference(monkeypatch):
    x, y = (torch.randn(50, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    whole = precision(x, y), recall(x, y), density(x, y), coverage(x, y)
    monkeypatch.setattr("lcm_distill.metrics.neighbours.ROWS", 7)
    assert (precision(x, y), recall(x, y), density(x, y), coverage(x, y)) == pytest.approx(whole)
