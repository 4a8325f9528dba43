"""The registry of metric protocols, by name. A new protocol is a module of `metrics.protocols` and a line here.

Nothing here loads a network or imports its library: a protocol does so when it is opened.
"""

from difflib import get_close_matches

import torch

from lcm_distill.core.errors import UserError
from lcm_distill.metrics.protocol import MetricProtocol, OpenedProtocol, Weights
from lcm_distill.metrics.protocols import clip, dinov2, inception, shapes

PROTOCOLS: dict[str, MetricProtocol] = {}
"""All protocols by name, in the order in which errors list them."""


def register_protocol(protocol: MetricProtocol) -> None:
    """Make a protocol available under its name.

    Worker processes import modules anew: call this at import, in a module that they import as well.

    Raises:
        ValueError: another protocol has the name.
    """
    if PROTOCOLS.get(protocol.name, protocol) is not protocol:
        raise ValueError(f"there is a metric protocol {protocol.name!r} already")
    PROTOCOLS[protocol.name] = protocol


for _protocol in (
    shapes.SHAPES,
    inception.T2I_BENCHMARK,
    inception.GIGAGAN,
    inception.TORCH_FIDELITY,
    inception.PYTORCH_FID,
    dinov2.DINOV2,
    clip.CLIP_MMD,
    clip.CLIP_VIT_B_32,
    clip.CLIP_VIT_G_14,
):
    register_protocol(_protocol)


def find_protocol(name: str, key: str = "") -> MetricProtocol:
    """The protocol called `name`, without its network.

    Args:
        key: of the configuration that names it, for the error.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    if name not in PROTOCOLS:
        close = get_close_matches(name, PROTOCOLS, n=1)
        guess = f"did you mean {close[0]}? " if close else ""
        prefix = f"{key}: " if key else ""
        raise UserError(f"{prefix}metric protocol {name!r} is unknown: {guess}choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def open_protocol(name: str, weights: Weights = None, device: str | torch.device = "cpu") -> OpenedProtocol:
    """A protocol with its feature network loaded.

    Args:
        weights: a file or folder; None: where the network's library keeps them.

    Raises:
        UserError: there is no such protocol, or the weights are missing or not the published ones.
    """
    protocol = find_protocol(name)
    return OpenedProtocol(protocol, protocol.load(weights, torch.device(device)))
