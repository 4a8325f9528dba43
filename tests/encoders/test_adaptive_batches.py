"""Batches that do not fit are halved, and everything is encoded once and in order."""

import weakref

import pytest
import torch

from lcm_distill.core.errors import UserError
from lcm_distill.encoders.adaptive_batches import AdaptiveBatches


def encoder_with_room_for(count: int, seen: list[int]):
    def encode(items):
        seen.append(len(items))
        if len(items) > count:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.tensor(items, dtype=torch.float32)

    return encode


def test_a_batch_that_does_not_fit_is_halved_for_good():
    seen: list[int] = []
    batches = AdaptiveBatches(encoder_with_room_for(3, seen), 16)
    with pytest.warns(UserWarning, match="does not fit the GPU's memory") as warned:
        assert batches(range(20)).tolist() == list(range(20))
    assert [str(warning.message).split(": ")[1] for warning in warned] == [f"{n} from now on" for n in (8, 4, 2)]
    assert seen == [16, 8, 4] + [2] * 10
    assert batches(range(5)).tolist() == list(range(5)) and seen[-3:] == [2, 2, 1]


def test_what_fits_is_left_alone():
    seen: list[int] = []
    assert AdaptiveBatches(encoder_with_room_for(16, seen), 16)(range(20)).tolist() == list(range(20))
    assert seen == [16, 4]


def test_memory_is_given_back_when_the_batch_that_failed_holds_none_of_it(monkeypatch):
    class Held:
        pass

    failed: list[weakref.ref] = []

    def encode(items):
        if len(items) > 1:
            held = Held()
            failed.append(weakref.ref(held))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.tensor(items)

    still_there = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: still_there.append(failed[-1]() is not None))
    with pytest.warns(UserWarning):
        AdaptiveBatches(encode, 4)([1, 2, 3, 4])
    assert still_there == [False, False]


def test_when_not_even_one_fits_the_remedy_is_named():
    with pytest.warns(UserWarning), pytest.raises(UserError, match=r"set encoders\.tiling = true"):
        AdaptiveBatches(encoder_with_room_for(0, []), 2)([1, 2])
