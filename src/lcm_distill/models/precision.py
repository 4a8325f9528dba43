"""Matrix products in bfloat16, of weights that may be held in float32, and the layers that stay float32."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function


class Matrices(nn.Module):
    """A module whose weight matrices can be multiplied in a lower precision than they are held in.

    The module may hold copies of its matrices in that precision instead of casting them in every call. After an
    in-place change of the weights, call `refresh_copies`; loading a state dict and moving to another device or dtype
    refresh the copies themselves. Vectors, such as biases and the weights of norms, have no copies.

    Attributes:
        copies: of matrices, by parameter name. They are not part of the state dict; gradients pass through them to the
            parameters.
        compute_dtype: the dtype of the products; None means that of the weights.
    """

    copies: Mapping[str, Tensor] = MappingProxyType({})
    compute_dtype: torch.dtype | None = None

    def matrix(self, name: str) -> Tensor:
        """The parameter `name` in the dtype of the products; its gradient arrives in the dtype of the parameter."""
        parameter = cast(Tensor, getattr(self, name))
        copy = self.copies.get(name)
        if copy is None:
            return parameter.to(self.compute_dtype or parameter.dtype)
        return cast(Tensor, _UseCopy.apply(parameter, copy)) if torch.is_grad_enabled() else copy

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType]
        self._recreate_copies()
        return self

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)  # pyright: ignore[reportUnknownMemberType]
        self._recreate_copies()

    def _recreate_copies(self) -> None:
        if self.copies:
            self.copies = {name: parameter.detach().bfloat16() for name, parameter in weight_matrices(self)}


class Linear(Matrices, nn.Linear):
    """A linear layer that casts its input to the dtype of its products."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the layer's products."""
        return self.compute_dtype or self.weight.dtype

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features), in the dtype that the matrix is computed in."""
        weight = self.matrix("weight")
        bias = cast(Tensor | None, self.bias)
        return nn.functional.linear(input.to(weight.dtype), weight, None if bias is None else bias.to(weight.dtype))


class _UseCopy(Function):
    """Returns a low-precision copy of a parameter; the gradient goes to the parameter."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, copy: Tensor) -> Tensor:
        ctx.dtype = parameter.dtype
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].to(ctx.dtype), None


def cast_matrices(network: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
    """Hold a network's matrices in a lower precision, in place, for a network whose weights do not change.

    Parts that `float32_modules` names keep their dtype.
    """
    for module in low_precision_modules(network):
        for _, parameter in weight_matrices(module):
            parameter.data = parameter.data.to(dtype)


def compute_in_bfloat16(network: nn.Module, copied: bool) -> None:
    """Compute a network's products in bfloat16 and leave its weights as they are.

    Args:
        copied: hold bfloat16 copies, on the device that the network is on; call `refresh_copies` after each change.
            Without copies a matrix is cast in every call, as FSDP needs it, which gathers weights for each call.
    """
    for module in low_precision_modules(network):
        module.compute_dtype = torch.bfloat16
        module.copies = {name: weight.detach().bfloat16() for name, weight in weight_matrices(module)} if copied else {}


def refresh_copies(network: nn.Module) -> None:
    """Update the bfloat16 copies of a network's matrices from its weights."""
    copies, originals = list[Tensor](), list[Tensor]()
    for module in low_precision_modules(network):
        copies += module.copies.values()
        originals += [cast(Tensor, getattr(module, name)).detach() for name in module.copies]
    if copies:
        torch._foreach_copy_(copies, originals)  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]


def low_precision_modules(network: nn.Module) -> Iterator[Matrices]:
    """The modules of a network whose products may be computed in bfloat16."""
    kept = {id(part) for module in network.modules() for part in float32_modules(module)}
    for module in network.modules():
        if isinstance(module, Matrices) and id(module) not in kept:
            yield module


def float32_modules(module: nn.Module) -> Iterator[nn.Module]:
    """A module with the class attribute `float32 = True`, and all modules inside it; nothing for any other.

    These are the embeddings of noise level and guidance scale, which distinguish a pair's two points; the last layer,
    whose output the loss compares; and the experts' gates, where rounding would route a token differently at the two
    points. bfloat16 would cost more there than it saves (`benchmarks/precision.py`).
    """
    if getattr(module, "float32", False):
        yield from module.modules()


def weight_matrices(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A module's own parameters with two or more dimensions, by name."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() > 1:
            yield name, parameter
