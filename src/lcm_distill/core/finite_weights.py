"""Weights that are numbers, in float32 as well, which networks hold them in."""

from collections.abc import Mapping

from torch import Tensor

from lcm_distill.core.errors import DataError


def require_finite(weights: Mapping[str, Tensor], whose: str, remedy: str = "take a copy that was not damaged") -> None:
    """Check that all weights of a network are finite in float32; tensors of integers are.

    Args:
        weights: by name, on any device.
        whose: where they come from, for the message. remedy: what to do about it.

    Raises:
        DataError: some are not.
    """
    broken = [name for name, tensor in weights.items() if not _is_finite(tensor)]
    if broken:
        raise DataError(
            f"{whose} has weights that are not finite ({len(broken)} of {len(weights)} tensors in float32, such as "
            f"{broken[0]}): {remedy}"
        )


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    # PyTorch asks this of no float of eight bits, and float64 holds numbers that float32 does not.
    return bool((tensor.float() if tensor.element_size() in (1, 8) else tensor).isfinite().all())
