"""A search for the sigmas of the multistep consistency sampler."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

Sigmas = tuple[float, ...]
"""Sigmas at which the sampler's steps begin, falling."""
Ends = tuple[float, ...]
"""The parameters of a search: sigmas of the second and of the last step; of two steps only the last, of one none."""

SECOND, LAST = 4.0, 0.5
"""Where searches start: sigmas of the second and of the last step."""
FACTORS = (2.0, 2.0**0.5)
"""By how much a search moves a sigma, coarse and then fine."""


class Trial(NamedTuple):
    """Sigmas that were tried, and the distance of samples generated with them from the data."""

    sigmas: Sigmas
    distance: float


def search_sigmas(
    distance: Callable[[Sigmas], float], steps: int, sigma_min: float, sigma_max: float
) -> Iterator[Trial]:
    """Pattern search (Hooke and Jeeves, 1961) over sigmas that fall geometrically after `sigma_max`.

    The search has two parameters, the sigmas of the second and of the last step. Each is moved up and down while the
    distance falls, by a factor of 2 and then of its square root.

    Args:
        distance: of samples generated with given sigmas from the data; called once for every tuple of sigmas.
        steps: 1 or more; with one step there is one trial, `sigma_max`.

    Yields:
        Every trial in turn; the one of least distance is the result.
    """
    tried: dict[Sigmas, float] = {}

    def trial(ends: Ends) -> Iterator[Trial]:
        sigmas = geometric_sigmas(steps, sigma_max, ends)
        if sigmas not in tried:
            tried[sigmas] = distance(sigmas)
            yield Trial(sigmas, tried[sigmas])

    best = _start(min(steps - 1, 2), sigma_min, sigma_max)
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


def geometric_sigmas(steps: int, sigma_max: float, ends: Ends) -> Sigmas:
    """`sigma_max`, and steps - 1 sigmas that fall geometrically from the first of `ends` to the last; three digits."""
    inner = steps - 1
    ratio = (ends[-1] / ends[0]) ** (1 / (inner - 1)) if inner > 1 else 1.0
    return (sigma_max, *(float(f"{ends[0] * ratio**place:.3g}") for place in range(inner)))


def _start(count: int, sigma_min: float, sigma_max: float) -> Ends:
    """Where the search starts: the usual sigmas, or spread geometrically over a range that does not hold these."""
    usual = (SECOND, LAST)[2 - count :]
    if _fits(usual, sigma_min, sigma_max):
        return usual
    ratio = (sigma_min / sigma_max) ** (1 / (count + 1))
    return tuple(sigma_max * ratio**place for place in range(1, count + 1))


def _neighbours(ends: Ends, factor: float) -> list[Ends]:
    """Each of `ends` moved up and down alone, and all of them together."""
    shifts = [tuple(factor if place == moved else 1.0 for place in range(len(ends))) for moved in range(len(ends))]
    shifts += [(factor,) * len(ends)] if len(ends) > 1 else []
    return [
        tuple(end * shift**sign for end, shift in zip(ends, shifted, strict=True))
        for shifted in shifts
        for sign in (1, -1)
    ]


def _fits(ends: Ends, sigma_min: float, sigma_max: float) -> bool:
    """Whether sigmas fall all the way from below `sigma_max` to above `sigma_min`."""
    cuts = (sigma_max, *ends, sigma_min)
    return all(upper > 1.1 * lower for upper, lower in pairwise(cuts))
