"""A checkpoint written in the background holds what there was when `save` was called, and a failed write is told."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from lcm_distill.core.errors import DataError
from lcm_distill.training import checkpoints as module
from lcm_distill.training.checkpointing import storage
from lcm_distill.training.checkpointing.index import read_index
from lcm_distill.training.checkpoints import Checkpoints
from tests.ranks import finish, start


def tensors_of_every_kind() -> dict[str, Tensor]:
    from torchao.optim.subclass_8bit import OptimState8bit

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {
        "scalar": torch.zeros(()),
        "matrix": torch.zeros(5, 3),
        "transposed": torch.zeros(5, 3, dtype=torch.bfloat16).t(),
        "part": torch.zeros(9)[2:5],
        "sharded": distribute_tensor(torch.zeros(5, 3), mesh, [Shard(0)]),  # not as many rows on each rank
        "8bit": OptimState8bit.zeros((16, 32)),
    }


def held(tensor: Any) -> list[Tensor]:
    """The plain tensors of this rank that hold a tensor's values."""
    if hasattr(tensor, "codes"):
        return [tensor.codes, tensor.scale]
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor]


def values(tensor: Tensor, step: int) -> Tensor:
    return (torch.arange(tensor.numel()) + step).view(tensor.shape).to(tensor.dtype)


def fill(tensors: dict[str, Tensor], step: int) -> None:
    for part in (part for tensor in tensors.values() for part in held(tensor)):
        part.copy_(values(part, step))


def save_thrice(folder: Path) -> None:
    dist.init_process_group("gloo")
    may_write, commit = threading.Event(), module.commit_folder

    def commit_when_it_may(*arguments) -> None:
        assert may_write.wait(60), "save waits for the write"
        commit(*arguments)

    module.commit_folder = commit_when_it_may  # in this process, which ends with the test
    checkpoints, tensors = Checkpoints(folder, "print", keep=3, background=True), tensors_of_every_kind()
    checkpoints.reserve(tensors)
    for step in (1, 2, 3):
        fill(tensors, step)
        checkpoints.save(step, tensors)
        fill(tensors, 100)
        may_write.set()
        checkpoints.wait()
        may_write.clear()
    checkpoints.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")]
    dist.barrier()
    for step in (1, 2, 3):
        checkpoints.load(step, tensors)
        for name, tensor in tensors.items():
            assert all(torch.equal(part, values(part, step)) for part in held(tensor)), (step, name)


@pytest.mark.parametrize("ranks", [1, 2])
def test_each_checkpoint_in_the_background_holds_the_bits_of_its_step(tmp_path, ranks):
    assert finish(start(ranks, save_thrice, tmp_path)) == [0] * ranks


class PicklesBehindAnIndex(FileSystemWriter):
    """An index of numbers, and each part as `torch.save` writes it."""

    finish = storage._Writer.finish


def save_as_before_and_load(folder: Path, writer: type[FileSystemWriter], index: str) -> None:
    """A checkpoint as earlier versions wrote it: first with PyTorch's pickle for an index."""
    dist.init_process_group("gloo")
    storage._Writer = writer  # in this process, which ends with the test
    checkpoints, tensors = Checkpoints(folder, "print"), tensors_of_every_kind()
    fill(tensors, 1)
    checkpoints.save(1, tensors)
    dist.barrier()
    names = {path.name for path in (folder / "step-0000001").iterdir()}
    assert names & {".metadata", "index.json"} == {index} and "__0_0.distcp" in names
    fill(tensors, 100)
    assert checkpoints.load_latest(lambda: tensors) == 1
    for name, tensor in tensors.items():
        assert all(torch.equal(part, values(part, 1)) for part in held(tensor)), name


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("writer", "index"), [(FileSystemWriter, ".metadata"), (PicklesBehindAnIndex, "index.json")])
def test_checkpoints_of_earlier_versions_are_read(tmp_path, ranks, writer, index):
    assert finish(start(ranks, save_as_before_and_load, tmp_path, writer, index)) == [0] * ranks


def test_a_file_holds_the_numbers_and_nothing_else(tmp_path):
    values, flag = torch.arange(6, dtype=torch.bfloat16).view(2, 3), torch.tensor(True)
    Checkpoints(tmp_path, "print").save(1, {"values": values, "flag": flag, "none": torch.zeros(0, 3)})
    folder = tmp_path / "step-0000001"
    stored = (folder / "__0_0.bin").read_bytes()
    places = {name: tensor.chunks[0] for name, tensor in read_index(folder).items() if tensor.chunks}
    assert {path.suffix for path in folder.iterdir()} == {".bin", ".json", ""} and len(stored) == 13
    at = places["values"].start
    assert stored[at : at + 12] == values.view(torch.uint8).numpy().tobytes() and stored[places["flag"].start] == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["value"]["chunks"][0].update(file="../other"),
        lambda index: index["value"]["chunks"][0].update(file=".."),
        lambda index: index["value"]["chunks"][0].update(length=10**6),
        lambda index: index["value"]["chunks"][0].update(start=-1),
        lambda index: index["value"].update(dtype="load"),
        lambda index: index["value"].update(shape=None),
        lambda index: index["value"].update(dtype="float64"),
        lambda index: index["value"].update(chunks=[]),
        lambda index: index["value"]["chunks"][0].update(start=True),
        lambda index: index["value"]["chunks"][0].update(offsets=[1]),
        lambda index: index["value"]["chunks"][0].update(sizes=[1], length=4),
        lambda index: index["value"]["chunks"][0].update(sizes=[2, 1]),
        lambda index: index["value"]["chunks"].append(index["value"]["chunks"][0]),
        lambda index: index.update(other=index["value"]),
        lambda index: index.clear() or index.update({"value": []}),
    ],
)
def test_an_index_that_does_not_describe_its_files_is_refused(tmp_path, change):
    Checkpoints(tmp_path, "print").save(1, {"value": torch.zeros(2)})
    path = tmp_path / "step-0000001/index.json"
    index = json.loads(path.read_bytes())
    change(index)
    path.write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"is not an index|does not hold all") as refused:
        read_index(path.parent)
    assert "\n" not in str(refused.value)


def test_numbers_of_another_kind_are_not_taken_for_a_tensors(tmp_path):
    checkpoints = Checkpoints(tmp_path, "print")
    checkpoints.save(1, {"value": torch.ones(2)})
    path = tmp_path / "step-0000001/index.json"
    path.write_text(path.read_text().replace("float32", "int32"))
    with pytest.raises(DataError, match=r"value is torch\.float32, and torch\.int32 in the checkpoint"):
        checkpoints.load(1, {"value": torch.zeros(2)})


def save_where_a_file_is(folder: Path) -> None:
    dist.init_process_group("gloo")
    folder.touch()
    checkpoints = Checkpoints(folder, "print", background=True)
    checkpoints.save(1, {"value": torch.zeros(1)})
    with pytest.raises(FileExistsError):
        checkpoints.wait()


def test_waiting_tells_of_a_write_that_failed(tmp_path):
    assert finish(start(1, save_where_a_file_is, tmp_path / "file")) == [0]
