"""A data set that changes after its first encoding, and the cache that is made of it."""

import numpy as np
import pyarrow.parquet as pq
import torch
import zarr

from lcm_distill.config import load_preset
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.verification import Check
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.precompute import precompute
from tests.foreign import Zeros, image_bytes


class Means(Zeros):
    """Encodes an image as its mean, and a caption as its length."""

    def encode_texts(self, captions):
        return torch.stack([torch.full((2, self.width), len(caption), dtype=torch.float16) for caption in captions])

    def encode_pixels(self, resolution, pixels, noise):
        return (pixels.float().mean((1, 2, 3)).reshape(-1, 1, 1, 1) + noise).half()


class Data:
    """A folder of pairs and the run that encodes it."""

    def __init__(self, folder):
        self.root, self.run = folder / "data", RunFolder(folder / "run")
        self.root.mkdir()
        self.config = load_preset(
            "shapes", ["data.source=folder", f"data.root='{self.root}'", "data.valid_fraction=0", "cache.shard_rows=4"]
        )

    def add(self, name: str, caption: str | None, number: int = 0) -> None:
        (self.root / f"{name}.jpg").write_bytes(image_bytes(number))
        if caption is not None:
            (self.root / f"{name}.txt").write_text(caption)

    def encode(self, **options):
        return list(precompute(self.config, self.run, **options))[-1]

    @property
    def cache(self) -> Cache:
        return Cache.open(self.config, self.run)

    def rows(self) -> dict[str, int]:
        table = pq.read_table(self.run.cache / "catalog" / "samples.parquet")
        return dict(zip(table["sample_id"].to_pylist(), table["row"].to_pylist(), strict=True))

    def images(self) -> dict[int, dict]:
        """Manifest rows of the images, without what names their shard's file and its commit."""
        shard = ("task", "fingerprint", "file", "file_bytes", "file_sha256")
        rows = [row for row in self.cache.manifest.read().to_pylist() if row["kind"] == "image"]
        return {row["row"]: {name: row[name] for name in row if name not in shard} for row in rows}

    def array(self, field: str) -> np.ndarray:
        return np.asarray(zarr.open_array(self.run.cache / field, mode="r")[:])

    @property
    def stride(self) -> int:
        return self.cache.layout.latents(1).stride

    def is_sound(self) -> bool:
        check = Check(self.cache)
        list(check.everything())
        assert not check.damage, check.damage
        return not check.pending


def stop_at(patch, storage, count):
    """Interrupt the command at a write or removal."""
    calls = []

    def stopping(method):
        def call(self, *arguments):
            calls.append(arguments)
            if len(calls) == count + 1:
                raise KeyboardInterrupt
            return method(self, *arguments)

        return call

    patch.setattr(storage, "put", stopping(storage.put))
    patch.setattr(storage, "remove", stopping(storage.remove))
