"""What counts as a number."""

import numpy as np
import pytest
import torch

from lcm_distill.core.numbers import is_number, is_whole, require_number

NONE = ["5", "", b"5", None, [], [1], {}, True, float("nan"), float("inf"), 10**400, torch.zeros(2)]
"""What files hold in place of a number, beside numbers that are too large."""


@pytest.mark.parametrize("value", NONE, ids=repr)
def test_these_are_no_numbers(value):
    assert not is_number(value)
    with pytest.raises(ValueError, match=r"^x is .*: it must be a number, 0 or more, and finite$") as refused:
        require_number("x", value, 0)
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize("value", [0, 5, 1.5, np.float32(2), np.int64(3), torch.tensor(1.0)])
def test_these_are_numbers(value):
    assert is_number(value)
    require_number("x", value, 0)


@pytest.mark.parametrize(("value", "whole"), [(-1, False), (11, False), (1.5, True), ("1", True)])
def test_a_number_outside_its_range_is_refused(value, whole):
    with pytest.raises(ValueError, match=f"x is {value!r}: it must be a .*number, 0 or more, and 10 at most"):
        require_number("x", value, 0, 10, whole)


@pytest.mark.parametrize("text", ["5", [5], None, float("inf"), True])
def test_what_is_no_whole_number(text):
    assert not is_whole(text) and is_whole(5.0)
