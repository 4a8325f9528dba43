"""Batches are functions of their step."""

import numpy as np

from lcm_distill.data.loader import ShuffledBatches


class Rows:
    """Stands where a `FieldReader` does; a row holds its own number."""

    def __getitem__(self, rows):
        return np.asarray(rows, np.float16)[:, None]


def batches(seed=0) -> ShuffledBatches:
    return ShuffledBatches(Rows(), Rows(), np.arange(10) * 2, np.arange(10) + 50, batch_size=4, seed=seed)


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
