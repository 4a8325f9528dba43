"""Training on tensors without content that say they are on a GPU: what meets there and who waits for it."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcm_distill.config import Config
from lcm_distill.data.cache.loader import Batch


class NoiseBatches:
    """Batches as a cache would give them, of noise."""

    def __init__(self, config: Config, size: int, tokens: int = 77) -> None:
        self.config, self.size, self.captions = config, size, SimpleNamespace(field=SimpleNamespace(shape=(tokens, 0)))

    def __getitem__(self, step: int) -> Batch:
        model, tokens = self.config.model, self.captions.field.shape[0]
        latents = torch.randn(self.size, model.in_channels, model.latent_size, model.latent_size)
        captions = torch.randn(self.size, tokens, model.caption_channels)
        return Batch(np.arange(self.size), np.arange(self.size), latents.half(), captions.half())


class Waits(TorchDispatchMode):
    """Records operations whose result a CPU must wait for: copies from GPU to CPU, and numbers that are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[str] = []
        self.numbers: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = {leaf.device.type for leaf in tree_leaves(out) if isinstance(leaf, Tensor)}
        if "cuda" in given and "cpu" in made:
            self.copies.append(str(func))
        return out


@contextmanager
def walking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """While it lasts tensors have no content; numbers that are asked for all at once (`tolist`) are ones.

    A single number (`item`, `bool`) is refused, and so are operands on different devices.
    """
    waits = Waits()

    def numbers(tensor: Tensor) -> list[float]:
        waits.numbers.append(tensor.numel())
        return [1.0] * tensor.numel()

    monkeypatch.setattr(FakeTensor, "tolist", numbers)
    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)  # it looks at what it has drawn
    monkeypatch.setattr(nn.Module, "_apply", replace_tensors)
    with FakeTensorMode(allow_non_fake_inputs=True), waits:
        yield waits
    gc.collect()  # what was made while a GPU had its doubles goes before they do


def replace_tensors(module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """What moves and converts a module's tensors. PyTorch's own exchanges two tensors' insides, which fakes refuse."""
    for part in module.modules() if recurse else [module]:
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(convert(parameter.detach()), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else convert(buffer)
    return module


def backward(loss: Tensor) -> None:
    """A backward pass, function by function: PyTorch's own asks the driver for streams, and there is none."""
    assert loss.grad_fn is not None
    grads: dict[Any, list[Tensor | None]] = {loss.grad_fn: [torch.ones_like(loss)]}
    for function in _in_order(loss.grad_fn):
        received = grads.pop(function)
        if hasattr(function, "variable"):
            (grad,), variable = received, function.variable
            if grad is not None:
                variable.grad = grad if variable.grad is None else variable.grad + grad
            continue
        for (following, number), grad in _sent(function, received):
            slots = grads.setdefault(following, [None] * len(following._input_metadata))
            slots[number] = _sum(slots[number], grad, following._input_metadata[number])


def _sum(before: Tensor | None, grad: Tensor | None, of: Any) -> Tensor | None:
    """Gradients of one result, which is described by `of`; broadcast dimensions are summed, as PyTorch does."""
    if grad is None:
        return before
    assert grad.device == of.device
    grad = grad.sum_to_size(of.shape).to(of.dtype)
    return grad if before is None else before + grad


def _in_order(root: Any) -> list[Any]:
    """Functions of a graph, each after all that lead to it."""
    order, seen, stack = list[Any](), {root}, [(root, iter(root.next_functions))]
    while stack:
        function, following = stack[-1]
        for child, _ in following:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append((child, iter(child.next_functions)))
                break
        else:
            order.append(function)
            stack.pop()
    return order[::-1]


def _sent(function: Any, grads: list[Tensor | None]) -> list[tuple[tuple[Any, int], Tensor | None]]:
    """What a function makes of the gradients of its results, each with the result it is for."""
    edges = function.next_functions
    if not isinstance(function, torch.autograd.function.BackwardCFunction):
        sent = function(*grads)
        sent = sent if isinstance(sent, tuple) else (sent,)
        return [(edge, grad) for edge, grad in zip(edges, sent, strict=False) if edge[0] is not None]
    sent = function.apply(*grads)
    sent = sent if isinstance(sent, tuple) else (sent,)
    # One of ours has an edge for each tensor that it was given, and a gradient for each argument.
    wanted = [grad for grad, needed in zip(sent, function.needs_input_grad, strict=True) if needed]
    return list(zip([edge for edge in edges if edge[0] is not None], wanted, strict=True))
