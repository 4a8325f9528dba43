"""Ratios against peers measured in the same run: experts against one-hot routing, cache reads against zarr-python.

make bench      # prints last: moe_speedup=... cache_vs_zarr=...
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import zarr
from one_hot import one_hot_experts

from lcm_distill.arrays.format import Field, describe, encode_shard
from lcm_distill.arrays.reader import FieldReader
from lcm_distill.models.experts import ExpertChoice
from lcm_distill.pipeline.atomic_writes import commit_bytes, commit_parts


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def moe_speedup() -> float:
    """Forward and backward of one XL/2 expert layer at 512 px, one-hot over gather."""
    layer = ExpertChoice(dim=1024, hidden=2048, multiple_of=256, experts=8, capacity=2.0)
    layer.initialise(0.02)
    x = torch.randn(2, 1024, 1024)
    return seconds(lambda: one_hot_experts(layer, x).sum().backward(), 3) / seconds(
        lambda: layer(x).sum().backward(), 3
    )


def cache_vs_zarr() -> float:
    """Random batches of 256 rows of 64 x 64 latents: zarr-python's time over ours."""
    field = Field("latents", rows=4096, shape=(4, 64, 64), shard_rows=1024)
    rows = np.random.default_rng(0).standard_normal((1024, *field.shape)).astype(np.float16)
    batch = np.random.default_rng(1).permutation(field.rows)[:256]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        commit_bytes(cache / field.name / "zarr.json", describe(field, {}))
        for shard in range(field.shards):
            commit_parts(field.shard_path(cache, shard), encode_shard(field, rows)[0])
        reader, array = FieldReader(cache, field), zarr.open_array(cache / field.name, mode="r")
        np.testing.assert_array_equal(reader[batch], array.oindex[batch])
        return seconds(lambda: array.oindex[batch], 3) / seconds(lambda: reader[batch], 3)


if __name__ == "__main__":
    print(f"moe_speedup={moe_speedup():.2f} cache_vs_zarr={cache_vs_zarr():.1f}")
