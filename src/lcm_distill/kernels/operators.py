"""How a fused kernel becomes an operator of PyTorch, and when it is taken.

Operators make kernels visible to whatever looks at operators: fake tensors, counts of bytes and operations, profilers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_library = torch.library.Library("lcm", "FRAGMENT")
_assumed: ContextVar[bool] = ContextVar("assumed", default=False)


def operator(schema: str, fake: Callable[..., Any], launch: Callable[..., Any]) -> Callable[..., Any]:
    """Define an operator without autograd; returns it.

    Args:
        schema: name, arguments and results, as `torch.library` takes them.
        fake: allocates the results, without content.
        launch: computes them; its first argument is a tensor.
    """

    def launched(*arguments: Any) -> Any:
        with torch.cuda.device_of(arguments[0]):  # Triton takes the thread's current device, whatever tensors say
            return launch(*arguments)

    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, launched, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lcm::{name}", fake, lib=_library)
    return getattr(torch.ops.lcm, name).default


def is_fused(x: Tensor) -> bool:
    """Whether to take the fused kernel for a tensor: on CUDA, in float32 or lower.

    Forward-mode differentiation (`torch.func.jvp`) goes through the plain path, whose operations have derivatives.
    """
    if x.dtype == torch.float64 or torch._C._are_functorch_transforms_active():  # pyright: ignore[reportPrivateUsage]
        return False
    return x.is_cuda or _assumed.get()


@contextmanager
def assume_fused() -> Iterator[None]:
    """Take fused kernels on any device: to count on fake tensors what a GPU would do, or to interpret kernels."""
    token = _assumed.set(True)
    try:
        yield
    finally:
        _assumed.reset(token)
