# The peers are installed for this benchmark alone.
# pyright: reportMissingImports=false
"""Figures against the field's own code, the Fréchet distance against scipy's, and what reading images costs.

make bench-metrics    # prints last: fid_parity=... frechet_speedup=... extract_overhead=...

All share one Inception whose weights are random, seeded by its tensors' names. Peers read the same image files by their
own code; distances are of the first 8 features, which 16 images a side determine.
"""

import tempfile
import warnings
from pathlib import Path

import torch
from metrics_cost import overhead, speedup, statistics_megabytes
from metrics_parity import parity
from tests.metrics.recorded import inception_weights


def main() -> None:
    """Measure in a temporary folder and print."""
    warnings.simplefilter("ignore")  # peers' own
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        weights = root / "inception.pth"
        torch.save(inception_weights(), weights)
        apart = parity(root, weights)
        costs = overhead(root / "read", weights)
    print(f"statistics of 30,000 x 2,048 features: {statistics_megabytes():.0f} MB")
    print(f"fid_parity={apart:.1e} frechet_speedup={speedup():.1f} extract_overhead={costs:.3f}")


if __name__ == "__main__":
    main()
