"""What tells rows of `metrics.parquet` of one model, solver and number of steps apart."""

from collections.abc import Mapping, Sequence
from typing import Any


def sigmas_text(sigmas: Sequence[float] | None) -> str:
    """Noise levels with three digits each."""
    return " ".join(f"{sigma:.3g}" for sigma in sigmas or ())


def distinction(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """Sigmas and dtype of a row in words, each only where others differ in it; empty where none does."""
    sigmas, dtype = sigmas_text(row.get("sigmas")), row.get("dtype")
    parts = [f"sigmas {sigmas}"] if any(sigmas_text(other.get("sigmas")) != sigmas for other in others) else []
    parts += [str(dtype)] if any(other.get("dtype") != dtype for other in others) else []
    return ", ".join(parts)
