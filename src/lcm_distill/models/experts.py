"""Expert-choice mixture of experts (arXiv 2202.09368): every expert picks the tokens it wants."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from lcm_distill.models.layers import round_up


class ExpertChoice(nn.Module):
    """Feed-forward layer in which each expert takes its `capacity * T / experts` highest-scoring tokens.

    Tokens travel to the experts by an index gather and back by an index scatter-add; the one-hot products
    of the reference compute the same sums with 5-12 % of the network's operations on top.
    """

    def __init__(self, dim: int, hidden: int, multiple_of: int, experts: int, capacity: float) -> None:
        super().__init__()
        width = round_up(hidden, multiple_of)
        self.experts, self.capacity = experts, capacity
        self.w1 = nn.Parameter(torch.empty(experts, dim, width))
        self.w2 = nn.Parameter(torch.empty(experts, width, dim))
        self.gate = nn.Linear(dim, experts, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim); a token that no expert chose comes back as zero."""
        batch, tokens, dim = x.shape
        taken = int(self.capacity * tokens / self.experts)
        affinity = self.gate(x).softmax(dim=-1)
        gates, chosen = affinity.transpose(1, 2).topk(taken, dim=-1)  # (B, experts, taken)
        first_token = torch.arange(0, batch * tokens, tokens, device=x.device)[:, None, None]
        rows = (chosen + first_token).transpose(0, 1).flatten()  # expert-major rows of the flat batch
        inputs = x.flatten(0, 1).index_select(0, rows).view(self.experts, batch * taken, dim)
        outputs = _gelu_product(inputs @ self.w1, self.w2)
        outputs = outputs.flatten(0, 1) * gates.transpose(0, 1).reshape(-1, 1)
        return torch.zeros_like(x).flatten(0, 1).index_add(0, rows, outputs.to(x.dtype)).view_as(x)

    def initialise(self, out_std: float) -> None:
        nn.init.trunc_normal_(self.gate.weight, std=0.02)
        nn.init.trunc_normal_(self.w1, std=0.02)
        nn.init.trunc_normal_(self.w2, std=out_std)


def _gelu_product(hidden: Tensor, weights: Tensor) -> Tensor:
    """gelu(hidden) @ weights."""
    if not torch.is_grad_enabled():
        return functional.gelu(hidden) @ weights
    return cast(Tensor, _GeluProduct.apply(hidden, weights.to(hidden.dtype)))


class _GeluProduct(Function):
    """Keeps `hidden` alone for the backward pass, not its gelu too, and has one tensor more of its size, not two."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weights)
        return functional.gelu(hidden) @ weights

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,), (hidden, weights) = grads, ctx.saved_tensors
        grad_weights = functional.gelu(hidden).transpose(-1, -2) @ grad
        grad_hidden = grad @ weights.transpose(-1, -2)
        return torch.ops.aten.gelu_backward(grad_hidden, hidden, grad_input=grad_hidden), grad_weights
