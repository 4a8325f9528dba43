"""Noise levels that a training is given, which must lie within the range of the diffusion.

They are no part of what makes a configuration valid: a student of another range is sampled with the run's own training
settings at hand.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError


def require_noise_levels(config: Config) -> None:
    """Check the noise levels of a distillation.

    Raises:
        UserError: one lies outside of the diffusion's range, or sigmas do not fall; the message names the key.
    """
    highest, lowest = config.diffusion.sigma_max, config.diffusion.sigma_min
    _require_falling(config.distill.falling_sigmas, highest, lowest)
    require_log_means(config.distill.log_means, highest, lowest)
    snap = config.distill.tuning.snap_below
    if config.distill.objective == "tuning" and snap >= highest:
        raise UserError(f"distill.tuning.snap_below = {snap} must lie below diffusion.sigma_max {highest}")


def _require_falling(sigmas: Mapping[str, Sequence[float]], highest: float, lowest: float) -> None:
    """Check sigmas, none of them an empty list, by their keys.

    Args:
        highest, lowest: `diffusion.sigma_max` and `diffusion.sigma_min`.

    Raises:
        UserError: some do not fall, or lie outside; the message names the key.
    """
    for key, falling in sigmas.items():
        if falling[0] > highest or any(upper <= lower for upper, lower in pairwise([*falling, lowest])):
            raise UserError(
                f"{key} = {list(falling)} must fall, and lie between diffusion.sigma_max {highest} and "
                f"diffusion.sigma_min {lowest}"
            )


def require_log_means(means: Mapping[str, float], highest: float, lowest: float) -> None:
    """Check means of ln sigma, by their keys.

    Raises:
        UserError: one is that of no noise level; the message names the key.
    """
    for key, mean in means.items():
        if not log(lowest) <= mean <= log(highest):
            raise UserError(
                f"{key} = {mean:g} must be the ln of a sigma between diffusion.sigma_min and diffusion.sigma_max, "
                f"{log(lowest):.1f} to {log(highest):.1f}"
            )
