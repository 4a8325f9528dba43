"""MicroDiT, the sizes it comes in, and its checkpoints.

A name is imported when it is first used: what reads a checkpoint's description needs no PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcm_distill.models.building import build, build_empty
    from lcm_distill.models.checkpoint import fill, load_checkpoint, read_tensors
    from lcm_distill.models.microdit import MicroDiT
    from lcm_distill.models.variants import VARIANTS, Variant

__all__ = ["VARIANTS", "MicroDiT", "Variant", "build", "build_empty", "fill", "load_checkpoint", "read_tensors"]

_MODULES = {
    "VARIANTS": "variants",
    "MicroDiT": "microdit",
    "Variant": "variants",
    "build": "building",
    "build_empty": "building",
    "fill": "checkpoint",
    "load_checkpoint": "checkpoint",
    "read_tensors": "checkpoint",
}
"""Where each name is defined."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
