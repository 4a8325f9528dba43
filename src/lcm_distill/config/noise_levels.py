"""Noise levels that a configuration names, which must lie within the range of the diffusion."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log


def require_falling(sigmas: Mapping[str, Sequence[float]], highest: float, lowest: float) -> None:
    """Check sigmas, none of them an empty list, by their keys.

    Args:
        highest, lowest: `diffusion.sigma_max` and `diffusion.sigma_min`.

    Raises:
        ValueError: some do not fall, or lie outside; the message names the key.
    """
    for key, falling in sigmas.items():
        if falling[0] > highest or any(upper <= lower for upper, lower in pairwise([*falling, lowest])):
            raise ValueError(
                f"{key} = {list(falling)} must fall, and lie between diffusion.sigma_max {highest} and "
                f"diffusion.sigma_min {lowest}"
            )


def require_log_means(means: Mapping[str, float], highest: float, lowest: float) -> None:
    """Check means of ln sigma, by their keys.

    Raises:
        ValueError: one is that of no noise level; the message names the key.
    """
    for key, mean in means.items():
        if not log(lowest) <= mean <= log(highest):
            raise ValueError(
                f"{key} = {mean:g} must be the ln of a sigma between diffusion.sigma_min and diffusion.sigma_max, "
                f"{log(lowest):.1f} to {log(highest):.1f}"
            )
