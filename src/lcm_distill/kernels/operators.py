# torch.library is typed in part only.
# pyright: reportUnknownMemberType=false
"""Registers fused kernels as PyTorch operators, and decides when they are used.

As operators they are visible to fake tensors, to counters of operations and memory, and to profilers.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_library = torch.library.Library("lcm", "FRAGMENT")
_assumed: ContextVar[bool] = ContextVar("assumed", default=False)


def operator(schema: str, fake: Callable[..., Any], launch: Callable[..., Any]) -> Callable[..., Any]:
    """Define and return an operator `lcm::NAME` without autograd.

    Args:
        schema: name, arguments and results, as `torch.library.Library.define` takes them.
        fake: allocates the results without computing them.
        launch: computes the results; its first argument is a tensor.
    """

    def launched(*arguments: Any) -> Any:
        # Triton launches on the current device, whatever device the tensors are on.
        with torch.cuda.device_of(arguments[0]):
            return launch(*arguments)

    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, launched, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lcm::{name}", fake, lib=_library)
    return getattr(torch.ops.lcm, name).default


def is_fused(x: Tensor) -> bool:
    """Whether to use the fused kernel for a tensor: on CUDA, in float32 or a lower precision.

    Forward-mode differentiation (`torch.func.jvp`) uses the plain path, whose operations have forward derivatives.
    """
    if x.dtype == torch.float64 or torch._C._are_functorch_transforms_active():  # pyright: ignore[reportPrivateUsage]
        return False
    return x.is_cuda or _assumed.get()


@contextmanager
def assume_fused() -> Generator[None]:
    """Use fused kernels on any device, for counting without values or for Triton's interpreter."""
    token = _assumed.set(True)
    try:
        yield
    finally:
        _assumed.reset(token)
