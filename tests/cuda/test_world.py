# torch.distributed does not declare its stores as exported.
# pyright: reportPrivateImportUsage=false
"""A training's ranks, each with a GPU of its own, and what they note and save of it."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
import torch
import torch.distributed as dist

from lcm_distill.config import Config, load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.executors.ranks import Ranks
from lcm_distill.training.checkpoints import Checkpoints
from lcm_distill.training.engine import world as worlds
from lcm_distill.training.engine.world import World, init_world, refuse_shared_gpus, single_process
from lcm_distill.training.throughput import peak_flop, peak_memory


def joined(config: Config) -> AbstractContextManager[World]:
    return init_world(config.device, config.engine)


@pytest.fixture
def launched(monkeypatch):
    """This process as one of several ranks, whose store holds what the others have said."""

    def launch(rank: int, world: int, local_rank: int) -> dist.Store:
        for name, value in {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": local_rank, "MASTER_PORT": 1}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("MASTER_ADDR", "localhost")
        store = dist.HashStore()
        for other in set(range(world)) - {rank}:
            store.set(f"gpu of rank {other}", f"of another machine {other}")
            store.set(f"rank {other} knows", "")
        monkeypatch.setattr(worlds, "rendezvous", lambda *_, **__: iter([(store, rank, world)]))
        return store

    return launch


@pytest.mark.parametrize(("device", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_one_process_trains_on_the_configured_gpu(gpus, groups, device, index):
    double, config = gpus(2), load_preset("shapes", [f"device={device}"])
    with joined(config) as world:
        assert world == World(0, 1, torch.device("cuda", index))
    (begun,) = groups.begun
    # A communicator of one rank is of no use, and costs time and memory.
    assert begun["backend"] == "cpu:gloo,cuda:nccl" and "device_id" not in begun
    assert double.current == index and single_process(config.device) == world


@pytest.mark.parametrize(("gpus_here", "local_rank", "index"), [(4, 2, 2), (1, 3, 0)], ids=["all seen", "one seen"])
def test_a_rank_has_a_gpu_and_its_communicator_knows_it(gpus, groups, launched, gpus_here, local_rank, index):
    double = gpus(gpus_here)
    store = launched(6, 8, local_rank)
    with joined(load_preset("shapes")) as world:
        assert world == World(6, 8, torch.device("cuda", index))
    (begun,) = groups.begun
    assert begun == {
        "backend": "cpu:gloo,cuda:nccl", "rank": 6, "world_size": 8, "timeout": worlds.TIMEOUT, "store": store,
        "device_id": torch.device("cuda", index),
    }  # fmt: skip
    assert double.made_current == [index]


def test_ranks_on_cpus_exchange_over_gloo(gpus, groups, launched):
    double = gpus(4)
    launched(1, 2, 1)
    with joined(load_preset("shapes", ["device=cpu"])) as world:
        assert world == World(1, 2, torch.device("cpu"))
    assert groups.begun[0]["backend"] == "gloo" and "device_id" not in groups.begun[0] and double.made_current == []


def test_several_ranks_on_one_chosen_gpu_are_refused(gpus, groups, launched):
    gpus(4)
    launched(0, 2, 0)
    with pytest.raises(UserError, match="device = 'cuda:1' is one GPU, and 2 ranks were launched") as caught:
        joined(load_preset("shapes", ["device=cuda:1"])).__enter__()
    assert "CUDA_VISIBLE_DEVICES" in str(caught.value) and groups.begun == []


def test_ranks_without_an_address_are_refused(gpus, launched, monkeypatch):
    gpus(2)
    launched(0, 2, 0)
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(UserError, match="2 ranks were launched without MASTER_PORT"):
        joined(load_preset("shapes")).__enter__()


@pytest.mark.parametrize("cards", [["a", "b", "a"], ["a", "a", "a"]])
def test_ranks_that_share_a_gpu_are_all_told(cards):
    store = dist.HashStore()

    def meet(rank: int) -> str:
        with pytest.raises(UserError) as caught:
            refuse_shared_gpus(store, Ranks(rank, 3, rank), cards[rank])
        return str(caught.value)

    with ThreadPoolExecutor(3) as ranks:
        told = list(ranks.map(meet, range(3)))
    count = len(set(cards))
    assert set(told) == {
        f"3 ranks were launched for {count} GPU{'s' if count > 1 else ''}: start one rank a GPU, such as "
        f"`torchrun --nproc-per-node {count}` on one machine"
    }


def test_ranks_with_a_gpu_each_go_on():
    store = dist.HashStore()
    with ThreadPoolExecutor(3) as ranks:
        list(ranks.map(lambda rank: refuse_shared_gpus(store, Ranks(rank, 3, rank), f"GPU-{rank}"), range(3)))


def test_checkpoints_in_the_background_hold_what_was_saved(gpus, groups, tmp_path):
    """Training changes the tensors at once; what is written are copies."""
    gpus(1)
    with joined(load_preset("shapes")):
        checkpoints = Checkpoints(tmp_path, "print", keep=3, background=True)
        tensors = {"weight": torch.arange(6.0), "step": torch.tensor(0.0)}
        for step in (1, 2, 3):
            tensors["step"].fill_(step)
            checkpoints.save(step, tensors)
            tensors["step"].fill_(-1)
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2, 3]
        for step in (1, 2, 3):
            found = {"weight": torch.zeros(6), "step": torch.zeros(())}
            checkpoints.load(step, found)
            assert found["weight"].tolist() == list(range(6)) and found["step"] == step


def test_figures_are_those_of_the_ranks_own_gpu(gpus):
    double = gpus(2)
    double.held = {0: 5 * 2**30, 1: 7 * 2**30}
    assert peak_memory(torch.device("cuda:1")) == 7
    assert peak_flop(torch.device("cuda:1")) == 989.4e12
    gpus(1, name="NVIDIA H100 PCIe")
    assert peak_flop(torch.device("cuda:0")) == 756e12
    gpus(1, name="NVIDIA of tomorrow")
    assert peak_flop(torch.device("cuda:0")) is None
