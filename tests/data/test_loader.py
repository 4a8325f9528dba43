"""Batches are functions of their step."""

import threading
from typing import cast

import numpy as np
import pytest
import torch

from lcm_distill.arrays.reader import FieldReader
from lcm_distill.core.randomness import normal
from lcm_distill.data.cache.loader import MixedBatches, ShuffledBatches, distinct_addresses


class Rows:
    """Stands where a `FieldReader` does; a row holds its own number."""

    is_closed = False

    def __getitem__(self, rows):
        return np.asarray(rows, np.float16)[:, None]

    def close(self):
        self.is_closed = True


def reader(rows: Rows | None = None) -> FieldReader:
    return cast(FieldReader, rows or Rows())


def batches(seed=0) -> ShuffledBatches:
    return ShuffledBatches(reader(), reader(), np.arange(10) * 2, np.arange(10) + 50, batch_size=4, seed=seed)


def test_an_epoch_shows_every_sample_once():
    drawn = np.concatenate([batches()[step].rows for step in range(5)])  # 20 samples are two epochs
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(0, 20, 2))
    assert list(drawn[:10]) != list(drawn[10:])


def test_any_step_can_be_asked_first():
    in_order = [batches()[step].rows.tolist() for step in range(6)]
    fresh = batches()
    assert [fresh[step].rows.tolist() for step in (5, 0, 3)] == [in_order[5], in_order[0], in_order[3]]
    assert batches(seed=1)[0].rows.tolist() != in_order[0]


def test_caption_belongs_to_its_sample():
    batch = batches()[1]
    np.testing.assert_array_equal(batch.captions[:, 0], batch.rows / 2 + 50)
    np.testing.assert_array_equal(batch.latents[:, 0], batch.rows)


def test_batches_reach_the_network_in_float32():
    batch = batches()[0]
    latents, captions = batch.to(torch.device("cpu"))
    assert latents.dtype == captions.dtype == torch.float32
    np.testing.assert_array_equal(captions, batch.captions)


def test_error_of_the_batch_read_ahead_comes_when_that_batch_is_asked_for():
    class Broken(Rows):
        def __getitem__(self, rows):
            if 0 in rows:
                raise ValueError("row 0 is broken")
            return super().__getitem__(rows)

    drawn = np.concatenate([batches()[step].rows for step in range(5)])
    bad = int(np.flatnonzero(drawn == 0)[0]) // 4
    broken = ShuffledBatches(reader(Broken()), reader(), np.arange(10) * 2, np.arange(10) + 50, batch_size=4, seed=0)
    for step in range(bad):
        broken[step]
    with pytest.raises(ValueError, match="row 0"):
        broken[bad]


def test_closing_ends_every_thread_that_reads():
    def reading() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("next-batch")}

    before, rows = reading(), [Rows() for _ in range(4)]
    fields = [reader(part) for part in rows]
    one = ShuffledBatches(fields[0], fields[1], np.arange(10), np.arange(10), batch_size=4, seed=0)
    other = ShuffledBatches(fields[2], fields[3], np.arange(3), np.arange(3), batch_size=1, seed=0)
    both = MixedBatches([one, other], [1 / 2, 1 / 2], 4)
    assert len(one[0].rows) == len(both[0].rows) == 4
    assert len(reading() - before) == 2
    both.close()
    assert not reading() - before
    assert all(part.is_closed for part in rows)


def mixed(batch_size=4, rank=0, ranks=1) -> MixedBatches:
    """Ten samples with half of the share, and two caches of three with a third of the rest and what is left."""
    small = [
        ShuffledBatches(reader(), reader(), np.arange(3), np.arange(3) + 9, batch_size=1, seed=0) for _ in range(2)
    ]
    return MixedBatches([batches(), *small], [1 / 2, 1 / 6, 1 / 3], batch_size, rank, ranks)


def test_shares_hold_at_every_moment_whatever_the_batch():
    counts = np.array([mixed().taken(samples) for samples in range(2000)])
    assert (counts.sum(axis=1) == np.arange(2000)).all()
    assert (np.diff(counts, axis=0) >= 0).all()
    assert np.abs(counts - np.arange(2000)[:, None] * [1 / 2, 1 / 6, 1 / 3]).max() < 2
    in_fours = np.concatenate([mixed(4)[step].rows for step in range(9)])
    in_nines = np.concatenate([mixed(9)[step].rows for step in range(4)])
    assert sorted(in_fours) == sorted(in_nines)


def test_caches_have_addresses_and_epochs_of_their_own():
    batch = mixed(60)[0]
    own, second, third = (batch.rows[(batch.rows >= low) & (batch.rows < low + size)] for low, size in
                          ((0, 19), (19, 3), (22, 3)))  # fmt: skip
    assert (len(own), len(second), len(third)) == (30, 10, 20)
    assert sorted(own[:10]) == sorted(own[10:20]) == list(range(0, 20, 2))
    assert sorted(second[:3]) == sorted(second[3:6]) == [19, 20, 21]
    np.testing.assert_array_equal(batch.latents[:30, 0], own)
    np.testing.assert_array_equal(batch.latents[40:, 0], third - 22)
    np.testing.assert_array_equal(batch.captions[40:, 0], third - 22 + 9)


def test_any_mixed_step_can_be_asked_first():
    in_order = [mixed()[step].rows.tolist() for step in range(6)]
    fresh = mixed()
    assert [fresh[step].rows.tolist() for step in (5, 0, 3)] == [in_order[5], in_order[0], in_order[3]]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_read_together_what_one_would(ranks):
    for step in range(6):
        whole, parts = mixed(7)[step], [mixed(7, rank, ranks)[step] for rank in range(ranks)]
        for rank, part in enumerate(parts):
            for own, all_of_it in zip(vars(part).values(), vars(whole).values(), strict=True):
                np.testing.assert_array_equal(own, all_of_it[rank::ranks])
        assert mixed(7, ranks - 1, ranks).samples(step).tolist() == whole.rows.tolist()


def test_rows_of_a_mixture_lead_back_to_their_caches():
    batch = mixed(60)[0]
    origins = [mixed().cache_of(row) for row in batch.rows.tolist()]
    assert [number for number, _ in origins] == [0] * 30 + [1] * 10 + [2] * 20
    np.testing.assert_array_equal(batch.latents[:, 0], [row for _, row in origins])


def test_the_first_occurrence_of_a_sample_keeps_its_row_as_address():
    rows = np.array([3, 5, 3, 3, 5, 9])
    assert distinct_addresses(rows).tolist() == [3, 5, 3 + 2**40, 3 + 2**41, 5 + 2**40, 9]
    assert distinct_addresses(np.arange(7)[::-1]).tolist() == list(range(7))[::-1]


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_sample_repeated_in_a_batch_has_numbers_of_its_own_each_time(samples, ranks):
    """Whatever the ranks, and whichever step is asked for first, as after a resumption."""
    few = [
        ShuffledBatches(reader(), reader(), np.arange(samples), np.arange(samples), 8, seed=0, rank=rank, ranks=ranks)
        for rank in range(ranks)
    ]
    alone = ShuffledBatches(reader(), reader(), np.arange(samples), np.arange(samples), 8, seed=0)
    for step in (2, 0):
        whole, parts = alone[step], [part[step] for part in few]
        assert len(set(whole.addresses.tolist())) == 8 and set(whole.rows.tolist()) == set(range(samples))
        for rank, part in enumerate(parts):
            assert part.addresses.tolist() == whole.addresses[rank::ranks].tolist()
    noise = normal(0, "distill noise", 0, whole.addresses, (4,))
    assert len({tuple(values) for values in noise.tolist()}) == 8
    (first, *_) = np.flatnonzero(whole.rows == 0)
    assert torch.equal(noise[first], normal(0, "distill noise", 0, [0], (4,))[0])
    pieces = whole.split(3)
    assert np.concatenate([piece.addresses for piece in pieces]).tolist() == whole.addresses.tolist()
