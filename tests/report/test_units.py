"""Sizes, durations and rates in words, against known answers."""

import pytest

from lcm_distill.report.units import format_bytes, format_duration, format_rate

YEAR = 365.25 * 86_400


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 kB"),
        (1_000, "1.0 kB"),
        (1_949, "1.9 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (23_600_000_000, "23.6 GB"),
        (80 * 10**9, "80.0 GB"),
        (1.5e12, "1.5 TB"),
        (4.2e15, "4.2 PB"),
        (1.2345e19, "12,345.0 PB"),
    ],
)
def test_bytes(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.25, "0.25 s"),
        (1, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (307, "5 min 07 s"),
        (3_599.6, "1 h 00 min"),
        (7_500, "2 h 05 min"),
        (86_400, "24 h 00 min"),
        (1_999 * 3_600, "1,999 h 00 min"),
        (2_000 * 3_600, "about 83 days on this device"),
        (7.7 * YEAR, "about 7.7 years on this device"),
        (12_345 * YEAR, "about 12,345.0 years on this device"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (1234.56, "1,234.6/s"),
        (1, "1.0/s"),
        (0.96, "1.0/s"),
        (0.94, "56.4/min"),
        (1 / 60, "1.0/min"),
        (1 / 120, "30.0/h"),
        (1.5 / 86_400, "1.5/day"),
        (0.01 / 86_400, "0.01/day"),
    ],
)
def test_rates(rate, text):
    assert format_rate(rate) == text
