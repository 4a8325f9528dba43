"""Weights that are numbers."""

from collections.abc import Mapping

from torch import Tensor

from lcm_distill.core.errors import DataError


def require_finite(weights: Mapping[str, Tensor], whose: str, remedy: str = "take a copy that was not damaged") -> None:
    """Check that all weights of a network are finite; tensors of integers are.

    Args:
        weights: by name, on any device.
        whose: where they come from, for the message. remedy: what to do about it.

    Raises:
        DataError: some are not.
    """
    broken = [name for name, tensor in weights.items() if not _is_finite(tensor)]
    if broken:
        raise DataError(
            f"{whose} has weights that are not finite ({len(broken)} of {len(weights)} tensors, such as {broken[0]}): "
            f"{remedy}"
        )


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    # PyTorch asks this of no float of eight bits.
    return bool((tensor.float() if tensor.element_size() == 1 else tensor).isfinite().all())
