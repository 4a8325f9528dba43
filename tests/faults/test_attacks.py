"""Files of someone else's that carry code: it is never run, whoever made their hashes."""

import itertools
import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex

from lcm_distill.training.checkpointing.hashes import HASHES, write_hashes
from lcm_distill.training.checkpointing.index import Chunk, encode_index, read_index
from tests.faults.commands import lcm
from tests.faults.spoil import spoil
from tests.faults.trainings import checkpoints, copied


class Code:
    """What unpickling runs: it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return open, (self.marker, "w")


def pickled_metadata(checkpoint: Path, marker: Path) -> None:
    (checkpoint / "index.json").unlink()
    (checkpoint / ".metadata").write_bytes(pickle.dumps(Code(marker)))


def metadata_that_asks_for_bytes(checkpoint: Path, marker: Path) -> None:
    """PyTorch unpickles what an index calls bytes."""
    names = list(read_index(checkpoint))
    content = pickle.dumps(Code(marker))
    (checkpoint / "__0_0.distcp").write_bytes(content)
    (checkpoint / "index.json").unlink()
    places = {MetadataIndex(name): _StorageInfo("__0_0.distcp", 0, len(content)) for name in names}
    metadata = Metadata({name: BytesStorageMetadata() for name in names}, storage_data=places)
    (checkpoint / ".metadata").write_bytes(pickle.dumps(metadata))


def data(checkpoint: Path, marker: Path) -> None:
    torch.save(Code(marker), checkpoint / "__0_0.distcp")
    size = (checkpoint / "__0_0.distcp").stat().st_size
    index = read_index_of_any_size(checkpoint)
    for name, tensor in index.items():
        chunk = Chunk(offsets=(0,) * len(tensor.shape), sizes=tensor.shape, file="__0_0.distcp", start=0, length=size)
        index[name] = tensor.model_copy(update={"chunks": (chunk,)})
    (checkpoint / "index.json").write_bytes(encode_index(index))


def read_index_of_any_size(checkpoint: Path) -> Any:
    from lcm_distill.training.checkpointing.index import _ADAPTER

    return _ADAPTER.validate_json((checkpoint / "index.json").read_bytes())


CHECKPOINTS = list(
    itertools.product([pickled_metadata, metadata_that_asks_for_bytes, data], [True, False], ["distill", "export"])
)


@pytest.fixture(scope="module")
def partial_run(encoded, tmp_path_factory):
    """Two checkpoints, and no student yet."""
    run = copied(encoded, tmp_path_factory.mktemp("attacks") / "partial")
    assert lcm("distill", "--run", run, fault=partial(spoil, "loss", 3)).is_clean(3)
    assert len(checkpoints(run / "distill")) == 2
    return run


@pytest.mark.trials(full=2 * len(CHECKPOINTS), sample=2)
def test_checkpoints(trials, partial_run, tmp_path):
    """Code in a checkpoint's index or data, its hashes made to fit or not, for `distill` and `export`."""
    for trial in trials:
        attack, fitting, command = CHECKPOINTS[trial * 5 % len(CHECKPOINTS)]
        run, marker = copied(partial_run, tmp_path / "run"), tmp_path / "ran"
        attacked = checkpoints(run / "distill")[1 if trial >= len(CHECKPOINTS) else 0 :]
        for checkpoint in attacked:
            attack(checkpoint, marker)
            if fitting:
                (checkpoint / HASHES).unlink()
                write_hashes(checkpoint)
        ended = lcm(command, "--run", run)
        assert not marker.exists(), (attack.__name__, fitting, command)
        if len(attacked) == 2:
            assert ended.is_clean(3) and "is damaged" in ended.errors, ended
            trials.count("refused")
        else:
            assert ended.is_clean(0) and "checkpoint damaged: " in ended.errors, ended
            trials.count("taken from the checkpoint before")


WEIGHTS = {
    "distill": ["distill", "--set", "model.teacher={}"],
    "evaluate": ["evaluate", "--set", "model.teacher={}", "--set", "evaluate.models=['teacher']"],
    "pretrain": ["pretrain", "--set", "pretrain.start={}", "--set", "pretrain.steps=1"],
    "student": ["evaluate", "--set", "evaluate.models=['student']"],
    "export": ["export"],
}


@pytest.mark.trials(full=2 * len(WEIGHTS), sample=2)
def test_weights(trials, encoded, tmp_path):
    """Code in the weights of a teacher or student, for `distill`, `evaluate`, `pretrain` and `export`."""
    for trial in trials:
        case = list(WEIGHTS)[trial % len(WEIGHTS)]
        run, marker, file = copied(encoded, tmp_path / "run"), tmp_path / "ran", tmp_path / "weights.pt"
        content = {"x_embedder.proj.weight": Code(marker)} if trial < len(WEIGHTS) else Code(marker)
        torch.save(content, file)
        shutil.copy(file, run / "student.safetensors")
        ended = lcm(*(word.format(file) for word in WEIGHTS[case]), "--run", run)
        assert not marker.exists(), case
        assert ended.is_clean(2, 3) and "cannot be read" in ended.errors, (case, ended)
        trials.count("refused")
