# The types of matplotlib are partial.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""Ticks at plain numbers on a logarithmic y axis, as many as its height has room for.

This module imports matplotlib, and so is imported where a chart is drawn.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil, floor, log, log10
from typing import Any

from matplotlib.ticker import Locator, MaxNLocator

DIGITS = (range(1, 10), (1, 2, 3, 4, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
"""Digits at which every decade may have a tick, the most first."""
WITHIN = 3
"""Ratio of an axis' ends up to which its ticks are at equal distances, as on a linear one."""
MOST, STEPS = 9, (1, 2, 5, 10)
"""Ticks at equal distances at most, less one, and digits of these distances."""
WANTED = 3
"""Ticks within the range of the data at least."""
LINE = 1.4
"""Distance of two ticks at least, in heights of the letters of their labels."""


class PlainTicks(Locator):
    """Ticks whose labels have room, found anew whenever the layout gives the axis another height.

    Args:
        axes: whose y axis has them. size: of the labels' letters, in points.
    """

    def __init__(self, axes: Any, size: float) -> None:
        self.axes, self.size = axes, size

    def __call__(self) -> Sequence[float]:
        """Ticks of the axis as it is."""
        return self.tick_values(*sorted(self.axes.get_ylim()))

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Ticks between two ends, 0 < vmin < vmax."""
        height = 72 * self.axes.bbox.height / self.axes.figure.dpi
        low, high = sorted(self.axes.yaxis.get_data_interval())
        return plain_ticks((vmin, vmax), (max(low, vmin), min(high, vmax)), LINE * self.size / max(height, 1))


def plain_ticks(ends: tuple[float, float], data: tuple[float, float], least: float) -> Sequence[float]:
    """As many ticks at plain numbers as a logarithmic axis has room for, at least three in the range of its data.

    Args:
        ends: of the axis. data: lowest and highest value on it, within its ends.
        least: distance of two ticks at least, as a share of the axis.

    Returns:
        what has room, be it fewer, where no choice has three.
    """
    room = least * log(ends[1] / ends[0])
    fitting = [ticks for ticks in _choices(*ends) if all(log(b / a) >= room for a, b in pairwise(ticks))]
    enough = (ticks for ticks in fitting if sum(data[0] <= tick <= data[1] for tick in ticks) >= WANTED)
    return next(enough, max(fitting, key=len, default=[]))


def _choices(low: float, high: float) -> Iterator[Sequence[float]]:
    """Ticks between two ends, the best ones first."""
    equal = [
        _between(MaxNLocator(count, steps=STEPS).tick_values(low, high), low, high) for count in range(MOST, 1, -1)
    ]
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    digits = [
        _between([float(f"{digit}e{decade}") for decade in decades for digit in chosen], low, high) for chosen in DIGITS
    ]
    apart = [_between([float(f"1e{decade}") for decade in decades[::step]], low, high) for step in (2, 3, 5, 10)]
    yield from [*equal, *digits] if high <= WITHIN * low else [*digits, *apart, *equal]


def _between(ticks: Sequence[float], low: float, high: float) -> Sequence[float]:
    return [float(tick) for tick in ticks if low <= tick <= high]
