"""What counts as a training gone wrong."""

import json
import math

import pytest

from lcm_distill.core.errors import DataError
from lcm_distill.training.anomaly import HISTORY, AnomalyDetector


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_wrong_from_the_first_step(tmp_path, value):
    detector = AnomalyDetector("distill", tmp_path, 0)
    assert detector.check(1.0, 1.0) is None
    assert detector.check(value, 1.0) == f"the loss is {value}"
    assert detector.check(1.0, value) == f"the gradient's norm is {value}"


def test_a_spike_is_far_above_the_median_of_the_last_losses(tmp_path):
    detector = AnomalyDetector("distill", tmp_path, 10.0, [1.0] * (HISTORY - 1))
    assert detector.check(1000.0, 1.0) is None  # too early to know what is usual
    assert detector.check(9.9, 1.0) is None
    assert detector.check(10.1, 1.0) == "the loss is 10.1, 10 times the usual 1"
    assert AnomalyDetector("distill", tmp_path, 0, [1.0] * HISTORY).check(1e9, 1.0) is None


def test_the_message_and_the_report_name_the_samples(tmp_path):
    samples = [{"row": row, "source": f"000/{row}.jpg"} for row in range(7)]
    with pytest.raises(DataError, match=r"in step 12 the loss is nan; its samples are rows 0, 1, 2, 3 \.\.\."):
        AnomalyDetector("distill", tmp_path, 0).stop(12, "the loss is nan", samples, report=True)
    assert json.loads((tmp_path / "stopped.json").read_text())["samples"] == samples
