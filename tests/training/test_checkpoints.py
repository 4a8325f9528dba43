"""A checkpoint written in the background holds what there was when `save` was called, and a failed write is told."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from lcm_distill.training import checkpoints as module
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
    dist.barrier()
    for step in (1, 2, 3):
        checkpoints.load(step, tensors)
        for name, tensor in tensors.items():
            assert all(torch.equal(part, values(part, step)) for part in held(tensor)), (step, name)


@pytest.mark.parametrize("ranks", [1, 2])
def test_each_checkpoint_in_the_background_holds_the_bits_of_its_step(tmp_path, ranks):
    assert finish(start(ranks, save_thrice, tmp_path)) == [0] * ranks


def save_where_a_file_is(folder: Path) -> None:
    dist.init_process_group("gloo")
    folder.touch()
    checkpoints = Checkpoints(folder, "print", background=True)
    checkpoints.save(1, {"value": torch.zeros(1)})
    with pytest.raises(FileExistsError):
        checkpoints.wait()


def test_waiting_tells_of_a_write_that_failed(tmp_path):
    assert finish(start(1, save_where_a_file_is, tmp_path / "file")) == [0]
