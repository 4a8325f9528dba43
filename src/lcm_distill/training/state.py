"""Everything a training must save to go on as if nothing had happened, as named tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict


def training_tensors(
    modules: Mapping[str, nn.Module], trained: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The tensors themselves, not copies: filling them restores the training.

    An optimiser that has not stepped yet is given its tensors, and then counts a step: it must be restored.

    Args:
        modules: all that have weights to save, by name.
        trained: those whose parameters the optimiser holds, by the same names.
    """
    weights = {
        f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()
    }
    # Rates and other settings of the optimiser stay out: they follow from the step and the configuration.
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    moments: dict[str, Any] = get_optimizer_state_dict(nn.ModuleDict(dict(trained)), optimiser, options=options)
    return weights | {f"optimiser.{key}": value for key, value in moments.items() if key.startswith("state.")}
