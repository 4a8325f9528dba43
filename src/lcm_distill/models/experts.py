"""Expert-choice mixture of experts (arXiv 2202.09368): every expert takes the tokens that score highest for it."""

import torch
from torch import Tensor, nn

from lcm_distill.kernels.activations import gelu_product
from lcm_distill.kernels.experts import Routes, combine, gather
from lcm_distill.models.layers import round_up
from lcm_distill.models.precision import Linear, Matrices


class ExpertChoice(Matrices):
    """Feed-forward layer in which each expert takes its `capacity * T / experts` highest-scoring tokens.

    Tokens are gathered and scattered by index. The reference implementation computes the same sums by products with
    one-hot matrices, which add 5-12 % to the network's operations.

    Args:
        hidden: hidden width of each expert, rounded up to a multiple of `multiple_of`.
        capacity: average number of experts that take a token.
    """

    def __init__(self, dim: int, hidden: int, multiple_of: int, experts: int, capacity: float) -> None:
        super().__init__()
        width = round_up(hidden, multiple_of)
        self.experts, self.capacity = experts, capacity
        self.w1 = nn.Parameter(torch.empty(experts, dim, width))
        self.w2 = nn.Parameter(torch.empty(experts, width, dim))
        self.gate = Gate(dim, experts)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim); zero for a token that no expert takes."""
        batch, tokens, dim = x.shape
        taken = int(self.capacity * tokens / self.experts)
        affinity = self.gate(x).softmax(dim=-1)
        gates, chosen = affinity.transpose(1, 2).topk(taken, dim=-1)  # (B, experts, taken)
        routes = Routes(chosen, x)
        inputs = gather(x, routes).view(self.experts, batch * taken, dim)
        outputs = gelu_product(inputs @ self.matrix("w1"), self.matrix("w2"))
        return combine(outputs.flatten(0, 1), gates.transpose(0, 1).reshape(-1), routes, like=x)

    def initialise(self, out_std: float) -> None:
        """Initialise the weights, those of the output projection with a standard deviation of `out_std`."""
        nn.init.trunc_normal_(self.gate.weight, std=0.02)
        nn.init.trunc_normal_(self.w1, std=0.02)
        nn.init.trunc_normal_(self.w2, std=out_std)


class Gate(Linear):
    """Scores of tokens for the experts, (B, T, dim) -> (B, T, experts)."""

    float32 = True

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__(dim, experts, bias=False)  # pyright: ignore[reportUnknownMemberType]
