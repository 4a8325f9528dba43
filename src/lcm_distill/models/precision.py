"""Matrix products in bfloat16 of weights that may be held in float32, and what is kept in float32 all the same."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function


class Matrices(nn.Module):
    """A module whose matrices may be multiplied with in a lower precision than they are held in.

    A network has a copy of them in that precision, and not a cast at every call. Whoever changes its weights in place
    refreshes it; loading and moving to another device or dtype do so by themselves. Vectors, such as biases and the
    weights of norms, have no copy.

    Attributes:
        copies: of matrices, by their names. Not part of the state; no gradient goes to them, but through them.
        computed_in: what products are taken in; None for whatever weights are held in.
    """

    copies: Mapping[str, Tensor] = MappingProxyType({})
    computed_in: torch.dtype | None = None

    def matrix(self, name: str) -> Tensor:
        """A matrix as it is computed with; its gradient arrives in the dtype it is held in."""
        held = cast(Tensor, getattr(self, name))
        copy = self.copies.get(name)
        if copy is None:
            return held.to(self.computed_in or held.dtype)
        return cast(Tensor, _Copied.apply(held, copy)) if torch.is_grad_enabled() else copy

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._copy_again()
        return self

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._copy_again()

    def _copy_again(self) -> None:
        if self.copies:
            self.copies = {name: held.detach().bfloat16() for name, held in own_matrices(self)}


class Linear(Matrices, nn.Linear):
    """A linear layer whose input is cast to what it is computed in."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its products."""
        return self.computed_in or self.weight.dtype

    def forward(self, input: Tensor) -> Tensor:
        weight = self.matrix("weight")
        bias = None if self.bias is None else self.bias.to(weight.dtype)
        return nn.functional.linear(input.to(weight.dtype), weight, bias)


class _Copied(Function):
    """A copy in lower precision, whose gradient is that of what it is a copy of."""

    @staticmethod
    def forward(ctx: Any, held: Tensor, copy: Tensor) -> Tensor:
        ctx.dtype = held.dtype
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].to(ctx.dtype), None


def lower(network: nn.Module) -> None:
    """Hold a network's matrices in bfloat16: for one that does not change. See `keeps_float32`."""
    for module in lowered_modules(network):
        for _, held in own_matrices(module):
            held.data = held.data.bfloat16()


def compute_in_bfloat16(network: nn.Module, copied: bool) -> None:
    """Take a network's products in bfloat16 and leave its weights as they are.

    Args:
        copied: keep copies in bfloat16, on the device that the network is on; `refresh` after each change. Otherwise a
            matrix is cast whenever it is used, as it must be where each use gathers it from other ranks.
    """
    for module in lowered_modules(network):
        module.computed_in = torch.bfloat16
        module.copies = {name: held.detach().bfloat16() for name, held in own_matrices(module)} if copied else {}


def refresh(network: nn.Module) -> None:
    """Bring the copies of a network's matrices up to date."""
    copies, originals = list[Tensor](), list[Tensor]()
    for module in lowered_modules(network):
        copies += module.copies.values()
        originals += [cast(Tensor, getattr(module, name)).detach() for name in module.copies]
    if copies:
        torch._foreach_copy_(copies, originals)  # pyright: ignore[reportPrivateImportUsage]


def lowered_modules(network: nn.Module) -> Iterator[Matrices]:
    """The modules of a network whose products are taken in low precision."""
    kept = {id(part) for module in network.modules() for part in keeps_float32(module)}
    for module in network.modules():
        if isinstance(module, Matrices) and id(module) not in kept:
            yield module


def keeps_float32(module: nn.Module) -> Iterator[nn.Module]:
    """All below a part that says `float32 = True`: bfloat16 would cost more there than it saves.

    The embeddings of noise level and guidance scale, which tell a pair's two points apart; the last layer, whose output
    is what they are compared by; and the experts' gates, which would send a token elsewhere for one of the two
    (`benchmarks/precision.py`).
    """
    if getattr(module, "float32", False):
        yield from module.modules()


def own_matrices(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A module's parameters that are matrices, or stacks of them, by name."""
    for name, held in module.named_parameters(recurse=False):
        if held.dim() > 1:
            yield name, held
