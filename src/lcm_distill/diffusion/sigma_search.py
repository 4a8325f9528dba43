"""A search for the noise levels of the multistep consistency sampler."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

Levels = tuple[float, ...]
"""Noise levels to jump from, falling."""

FIRST, LAST = 4.0, 0.5
"""Where searches start: levels of the second and of the last jump."""
FACTORS = (2.0, 2.0**0.5)
"""By how much a search moves a level, coarse and then fine."""


class Trial(NamedTuple):
    """Levels that were tried, and how far from the data their drawings lie."""

    levels: Levels
    distance: float


def search_sigmas(
    distance: Callable[[Levels], float], steps: int, sigma_min: float, sigma_max: float
) -> Iterator[Trial]:
    """Pattern search (Hooke and Jeeves, 1961) over levels that fall geometrically after `sigma_max`.

    Two numbers describe them, the levels of the second and of the last jump, however many steps there are; two steps
    have one of them, and one step has none. Each is moved up and down while that helps, by a factor of 2 and at last of
    its square root.

    Args:
        distance: of the drawings with given levels from the data; called once for each levels.

    Yields:
        every trial in turn; the one of least distance is what the search finds.
    """
    tried: dict[Levels, float] = {}

    def trial(ends: tuple[float, ...]) -> Iterator[Trial]:
        levels = geometric_sigmas(steps, sigma_max, ends)
        if levels not in tried:
            tried[levels] = distance(levels)
            yield Trial(levels, tried[levels])

    best = (FIRST, LAST)[-(steps - 1) :] if steps > 1 else ()
    yield from trial(best)
    for factor in FACTORS:
        moved = True
        while moved:
            around = [ends for ends in _neighbours(best, factor) if _fits(ends, sigma_min, sigma_max)]
            for ends in around:
                yield from trial(ends)
            centre = best
            best = min([best, *around], key=lambda ends: tried[geometric_sigmas(steps, sigma_max, ends)])
            moved = best != centre


def geometric_sigmas(steps: int, sigma_max: float, ends: tuple[float, ...]) -> Levels:
    """`sigma_max`, and steps - 1 levels that fall geometrically from the first of `ends` to the last; three digits."""
    inner = steps - 1
    ratio = (ends[-1] / ends[0]) ** (1 / (inner - 1)) if inner > 1 else 1.0
    return (sigma_max, *(float(f"{ends[0] * ratio**place:.3g}") for place in range(inner)))


def _neighbours(ends: tuple[float, ...], factor: float) -> list[tuple[float, ...]]:
    """Each of `ends` moved up and down alone, and all of them together."""
    shifts = [tuple(factor if place == moved else 1.0 for place in range(len(ends))) for moved in range(len(ends))]
    shifts += [(factor,) * len(ends)] if len(ends) > 1 else []
    return [
        tuple(end * shift**sign for end, shift in zip(ends, shifted, strict=True))
        for shifted in shifts
        for sign in (1, -1)
    ]


def _fits(ends: tuple[float, ...], sigma_min: float, sigma_max: float) -> bool:
    """Whether levels fall all the way from below `sigma_max` to above `sigma_min`."""
    cuts = (sigma_max, *ends, sigma_min)
    return all(upper > 1.1 * lower for upper, lower in pairwise(cuts))
