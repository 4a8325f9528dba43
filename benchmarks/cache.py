# The peers are installed for this benchmark alone.
# pyright: reportMissingImports=false
"""Latent cache against its peers: batches of 256 in global shuffle, and shards written and made safe with fsync.

make bench-cache      # prints last: loader_vs_mds=... loader_vs_memmap=... writer_vs_zarr=... writer_vs_mds=...

Everything is read from the page cache, filled afresh from the disk as it would be by the time of training, and gives
float16. A loader's time runs from its first batch to its last: what peers spend on the start of an epoch is not held
against them. Peers take turns with us, so that a busy machine slows all of them.
"""

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
import zarr
from streaming import MDSWriter, Stream, StreamingDataset
from torch.utils.data import DataLoader

from lcm_distill.arrays.format import Field, describe, encode_shard
from lcm_distill.arrays.reader import FieldReader
from lcm_distill.data.cache.loader import ShuffledBatches
from lcm_distill.pipeline.atomic_writes import commit_bytes, commit_parts

SAMPLES, SHARD, BATCH, WORKERS, REPEATS = 4096, 1024, 256, 2, 7
FIELDS = [Field("latents", SAMPLES, (4, 64, 64), SHARD), Field("text", SAMPLES, (77, 1024), SHARD)]
SAMPLE_BYTES = sum(field.row_bytes for field in FIELDS)
COLUMNS = {field.name: f"ndarray:float16:{','.join(map(str, field.shape))}" for field in FIELDS}


def shard_rows(shard: int) -> list[np.ndarray]:
    """A shard's rows of each field, float16."""
    generator = np.random.default_rng(shard)
    return [generator.standard_normal((SHARD, *field.shape), np.float32).astype(np.float16) for field in FIELDS]


def write_ours(folder: Path, shard: int, rows: list[np.ndarray]) -> None:
    """Our writer; it calls fsync itself."""
    for field, values in zip(FIELDS, rows, strict=True):
        commit_parts(field.shard_path(folder, shard), encode_shard(field, values)[0])


def write_zarr(folder: Path, shard: int, rows: list[np.ndarray]) -> None:
    """The same layout by zarr-python."""
    for field, values in zip(FIELDS, rows, strict=True):
        zarr.open_array(folder / field.name, mode="r+")[shard * SHARD : (shard + 1) * SHARD] = values
        sync(field.shard_path(folder, shard))


def write_mds(folder: Path, shard: int, rows: list[np.ndarray], hashes: Sequence[str] = ()) -> None:
    """mosaicml-streaming's writer, one folder a shard."""
    out = folder / str(shard)
    with MDSWriter(out=str(out), columns=COLUMNS, hashes=list(hashes)) as writer:
        for latents, text in zip(*rows, strict=True):
            writer.write({"latents": latents, "text": text})
    for path in out.iterdir():
        sync(path)


def write_webdataset(folder: Path, shard: int, rows: list[np.ndarray]) -> None:
    """Tar files of 256 samples."""
    for start in range(0, SHARD, 256):
        with webdataset.TarWriter(str(folder / f"{shard}-{start}.tar")) as writer:
            for row in range(start, start + 256):
                sample = {f"{field.name}.npy": values[row] for field, values in zip(FIELDS, rows, strict=True)}
                writer.write({"__key__": f"{shard * SHARD + row:06d}", **sample})


def write_flat(folder: Path, shard: int, rows: list[np.ndarray]) -> None:
    """Rows one after the other, for the memory map."""
    for field, values in zip(FIELDS, rows, strict=True):
        with (folder / field.name).open("ab") as file:
            file.write(values.data)


def write_bare(folder: Path, shard: int, rows: list[np.ndarray]) -> None:
    """Nothing but the bytes made safe: what no writer can be faster than."""
    for field, values in zip(FIELDS, rows, strict=True):
        (folder / f"{field.name}.bin").write_bytes(values.data)
        sync(folder / f"{field.name}.bin")


def sync(path: Path) -> None:
    """What our own commit does: fsync of the file and of its folder."""
    for target in (path, path.parent):
        descriptor = os.open(target, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def read_afresh(folder: Path) -> None:
    """Let go of the pages that writing left in memory and read the files again.

    How a file was written decides into what pieces its pages fall, and that decides how fast they are copied.
    """
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while file.read(2**22):
                    pass


def describe_fields(folder: Path) -> None:
    """Zarr's metadata, which our cache and zarr-python share."""
    for field in FIELDS:
        commit_bytes(folder / field.name / "zarr.json", describe(field, {}))


def read_ours(folder: Path) -> Callable[[int], Iterator[Any]]:
    """The loader of training; checksums verified."""
    rows = np.arange(SAMPLES)
    latents, text = (FieldReader(folder, field) for field in FIELDS)
    batches = ShuffledBatches(latents, text, rows, rows, BATCH, seed=0)
    steps = SAMPLES // BATCH
    return lambda epoch: (batches[step] for step in range(epoch * steps, (epoch + 1) * steps))


def read_memmap(folder: Path) -> Callable[[int], Iterator[Any]]:
    """`np.memmap` and `np.take`: nothing is verified."""
    maps = [np.memmap(folder / f.name, np.float16, "r", shape=(SAMPLES, *f.shape)) for f in FIELDS]

    def epoch_batches(epoch: int) -> Iterator[Any]:
        order = np.random.default_rng(epoch).permutation(SAMPLES)
        for start in range(0, SAMPLES, BATCH):
            yield [torch.from_numpy(np.take(values, order[start : start + BATCH], axis=0)) for values in maps]

    return epoch_batches


def read_mds(folder: Path) -> Callable[[int], Iterator[Any]]:
    """mosaicml-streaming as its guide says: local shards, shuffled, batch size told, behind a DataLoader."""
    streams = [Stream(local=str(path)) for path in sorted(folder.iterdir())]
    dataset = StreamingDataset(streams=streams, shuffle=True, batch_size=BATCH)
    loader = DataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, persistent_workers=True)
    return lambda epoch: iter(loader)


def read_webdataset(folder: Path) -> Callable[[int], Iterator[Any]]:
    """WebDataset as its guide says; its shuffle is of files and of a buffer, not global."""
    tars = sorted(map(str, folder.iterdir()))
    names = [f"{field.name}.npy" for field in FIELDS]
    dataset = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000).decode().to_tuple(*names).batched(BATCH)
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=WORKERS, persistent_workers=True)
    return lambda epoch: iter(loader)


def samples_per_second(batches: Iterable[Any]) -> float:
    """Throughput of an epoch from its first batch to its last."""
    batches = iter(batches)
    next(batches)
    began = time.perf_counter()
    count = sum(1 for _ in batches)
    return count * BATCH / (time.perf_counter() - began)


def take_turns(contenders: dict[str, Callable[[int], float]]) -> dict[str, float]:
    """Median throughput of each over rounds, the first of which warms up and does not count."""
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(REPEATS + 1):
        for name, measure in contenders.items():
            measured[name].append(measure(turn))
    return {name: float(np.median(values[1:])) for name, values in measured.items()}


def compare_writers(root: Path) -> dict[str, float]:
    """Samples a second of writing one shard of both fields over and over."""
    rows = shard_rows(0)

    def measure(write: Callable[[Path, int, list[np.ndarray]], None], name: str) -> Callable[[int], float]:
        def once(turn: int) -> float:
            folder = root / f"{name}-{turn}"
            folder.mkdir()
            describe_fields(folder)
            os.sync()  # nobody pays for what another left to be written
            began = time.perf_counter()
            write(folder, 0, rows)
            seconds = time.perf_counter() - began
            # Blocks of the disk that were never written before can be much slower: all write to the same ones.
            shutil.rmtree(folder)
            return SHARD / seconds

        return once

    writers = {
        "ours": write_ours,
        "zarr-python": write_zarr,
        "MDSWriter": write_mds,
        "MDSWriter, sha256": partial(write_mds, hashes=["sha256"]),
        "bytes and fsync": write_bare,
    }
    return take_turns({name: measure(write, name) for name, write in writers.items()})


def compare_loaders(root: Path) -> dict[str, float]:
    """Samples a second of shuffled batches."""
    forms = {
        # Those with worker processes first: they fork before we have threads.
        "mosaicml-streaming": (write_mds, read_mds),
        "WebDataset": (write_webdataset, read_webdataset),
        "memmap + take": (write_flat, read_memmap),
        "ours": (write_ours, read_ours),
    }
    for shard in range(SAMPLES // SHARD):
        rows = shard_rows(shard)
        for name, (write, _) in forms.items():
            (root / name).mkdir(exist_ok=True)
            write(root / name, shard, rows)
    read_afresh(root)
    epochs = {name: read(root / name) for name, (_, read) in forms.items()}
    return take_turns(
        {name: lambda turn, batches=batches: samples_per_second(batches(turn)) for name, batches in epochs.items()}
    )


def show(title: str, rates: dict[str, float]) -> None:
    """A small table: samples and bytes a second."""
    print(f"{title:<20} samples/s     GB/s")
    for name, rate in rates.items():
        print(f"  {name:<18} {rate:9.0f} {rate * SAMPLE_BYTES / 1e9:8.2f}")


def main() -> None:
    """Measure in a temporary folder and print."""
    warnings.simplefilter("ignore")  # peers' own
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        loaders = compare_loaders(root)
        writers = compare_writers(root)
    show("loader", loaders)
    show("writer", writers)
    print(
        f"loader_vs_mds={loaders['ours'] / loaders['mosaicml-streaming']:.2f} "
        f"loader_vs_memmap={loaders['ours'] / loaders['memmap + take']:.2f} "
        f"writer_vs_zarr={writers['ours'] / writers['zarr-python']:.2f} "
        f"writer_vs_mds={writers['ours'] / writers['MDSWriter']:.2f}"
    )


if __name__ == "__main__":
    main()
