"""Feature extractors of the configured protocols: found before work starts, opened where features are extracted."""

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import torch

from lcm_distill.config import EvaluateConfig
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.metrics.protocol import MetricProtocol, OpenedProtocol
from lcm_distill.metrics.registry import find_protocol, open_protocol

Version = tuple[int, int]
"""Size of a file in bytes and time of its last change in nanoseconds, which tell one that was replaced."""

IMAGES_ONLY = "`lcm evaluate --images-only` generates images without measuring them"
"""The end of errors about what only measuring needs."""


@dataclass(frozen=True)
class ExtractorInfo:
    """A protocol's feature extractor, identified and not loaded.

    Attributes:
        protocol: name of the protocol. name, sha256, width: as `metrics.interface.Extractor` has them.
    """

    protocol: str
    name: str
    sha256: str
    width: int

    @property
    def traits(self) -> MetricProtocol:
        """The protocol itself."""
        return find_protocol(self.protocol)


def chosen_protocols(settings: EvaluateConfig) -> list[MetricProtocol]:
    """The configured protocols.

    Raises:
        UserError: `protocols`, `reference` or `weights` names a protocol that there is not.
    """
    for key in ("reference", "weights"):
        for name in getattr(settings, key):
            find_protocol(name, f"evaluate.{key}.{name}")
    return [find_protocol(name, "evaluate.protocols") for name in settings.protocols]


def find_extractor(settings: EvaluateConfig, protocol: str) -> ExtractorInfo:
    """A protocol's feature extractor, after it was loaded once on the CPU.

    Raises:
        UserError: its weights are missing, or not what they should be.
    """
    weights = settings.weights.get(protocol)
    try:
        return _identify(find_protocol(protocol), weights, _version(weights))
    except UserError as error:
        raise UserError(f"{error}: set evaluate.weights.{protocol} to the file; {IMAGES_ONLY}") from error


def open_extractor(settings: EvaluateConfig, protocol: str, device: str) -> OpenedProtocol:
    """A protocol with its feature extractor loaded on a device, named as in the configuration.

    Raises:
        UserError: there is no such protocol or device, or the weights are missing or not what they should be.
    """
    weights = settings.weights.get(protocol)
    return _open(protocol, weights, _version(weights), resolve_device(device))


def _version(weights: Path | None) -> Version | None:
    if weights is None or not weights.is_file():
        return None
    stat = weights.stat()
    return stat.st_size, stat.st_mtime_ns


@cache
def _identify(protocol: MetricProtocol, weights: Path | None, version: Version | None) -> ExtractorInfo:
    """Loads once in a process what checks and work both need to know."""
    found = _open(protocol.name, weights, version, resolve_device("cpu")).extractor
    return ExtractorInfo(protocol.name, found.name, found.sha256, found.width)


@lru_cache(maxsize=1)
def _open(protocol: str, weights: Path | None, version: Version | None, device: torch.device) -> OpenedProtocol:
    """The last one is kept, until its file is replaced: several image sets are measured with it."""
    del version
    return open_protocol(protocol, weights, device)
