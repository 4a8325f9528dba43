"""The peer of the expert layers, for every benchmark that compares with it."""

import torch
from torch import Tensor
from torch.nn import functional

from lcm_distill.models.experts import ExpertChoice


def one_hot_experts(layer: ExpertChoice, x: Tensor) -> Tensor:
    """The reference's form of the layer: tokens travel by products with one-hot matrices."""
    taken = int(layer.capacity * x.shape[1] / layer.experts)
    gates, chosen = layer.gate(x).softmax(-1).transpose(1, 2).topk(taken, dim=-1)
    route = functional.one_hot(chosen, x.shape[1]).to(x.dtype)
    hidden = functional.gelu(torch.einsum("nekd,edf->nekf", torch.einsum("nekt,ntd->nekd", route, x), layer.w1))
    out = gates.unsqueeze(-1) * torch.einsum("nekf,efd->nekd", hidden, layer.w2)
    return torch.einsum("nekt,nekd->ntd", route, out)
