"""The state of a training that a checkpoint holds, as named tensors.

Weights of the trained model, its average, target and critic, and the optimiser's moments.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict


def training_tensors(
    modules: Mapping[str, nn.Module], trained: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The tensors themselves, not copies: filling them restores the training.

    An optimiser that has not stepped yet is given its state tensors and counts one step, so it must then be restored.

    Args:
        modules: all modules with weights to save, by name.
        trained: those whose parameters the optimiser updates, by the same names.
    """
    weights = {
        f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()
    }
    # Learning rates and other options of the optimiser are not saved: step and configuration determine them.
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    moments: dict[str, Any] = get_optimizer_state_dict(nn.ModuleDict(dict(trained)), optimiser, options=options)
    return weights | {f"optimiser.{key}": value for key, value in moments.items() if key.startswith("state.")}
