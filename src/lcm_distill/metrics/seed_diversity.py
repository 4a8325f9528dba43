"""How much samples of one caption differ between seeds: what a student loses that draws the likeliest sample alone."""

from itertools import combinations
from statistics import fmean

from torch import Tensor


def seed_diversity(samples: Tensor) -> float:
    """Mean Euclidean distance of two samples of the same caption.

    Args:
        samples: (seeds, B, ...), two seeds or more; the B captions are the same for each.

    Raises:
        ValueError: there is one seed only.
    """
    if len(samples) < 2:
        raise ValueError("one seed has no other to differ from")
    flat = samples.double().flatten(2)
    differences = (one - other for one, other in combinations(flat.unbind(), 2))
    return fmean(float(difference.square().sum(dim=1).sqrt().mean()) for difference in differences)
