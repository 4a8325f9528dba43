"""Which GPU work gets, and that it is the current one where work begins."""

from functools import partial

import pytest
import torch

from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.executors import processes, ray_actors
from lcm_distill.pipeline.executors.choice import choose_executor
from lcm_distill.pipeline.executors.devices import worker_gpu
from lcm_distill.pipeline.executors.processes import Processes, ProcessWorker
from lcm_distill.pipeline.executors.ranks import Ranks
from lcm_distill.pipeline.executors.ray_actors import RayActors
from lcm_distill.pipeline.executors.runner import TaskRunner
from lcm_distill.pipeline.executors.serial import Serial
from tests.pipeline.workload import TASKS, manifest_in, work_in


@pytest.mark.parametrize(
    ("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)]
)  # fmt: skip
def test_a_gpu_has_an_index_and_is_the_current_one(gpus, name, index):
    double = gpus(2)
    assert resolve_device(name) == torch.device("cuda", index)
    assert double.made_current == [index]


def test_a_gpu_without_an_index_is_the_current_one(gpus):
    gpus(4).current = 3
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:3")


def test_a_cpu_is_left_alone(gpus):
    double = gpus(2)
    assert resolve_device("cpu") == torch.device("cpu") and double.made_current == []
    gpus(0)
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [
        (0, "cuda", "device 'cuda' is not here: PyTorch finds no CUDA device"),
        (1, "cuda:1", "device 'cuda:1' is not here: there is 1 CUDA device, counted from cuda:0"),
        (8, "cuda:8", "device 'cuda:8' is not here: there are 8 CUDA devices, counted from cuda:0"),
        (1, "gpu", "device 'gpu' is unknown: write auto, cpu, cuda, cuda:0 or mps"),
        (1, "mps", "device 'mps' is not here: PyTorch finds no Metal device"),
        (1, "mps:1", "device 'mps:1' is not here: PyTorch finds no Metal device"),
        (1, "cuda:256", "device 'cuda:256' is unknown: write auto, cpu, cuda, cuda:0 or mps"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(gpus, count, name, message):
    gpus(count)
    with pytest.raises(UserError) as caught:
        resolve_device(name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("count", "device", "expected"),
    [
        (4, "auto", Processes(4, "auto")),
        (4, "cuda", Processes(4, "cuda")),
        (1, "auto", Serial),
        (4, "cuda:1", Serial),
        (4, "cpu", Serial),
    ],
)
def test_a_process_a_gpu_by_itself_where_no_card_is_chosen(gpus, count, device, expected):
    gpus(count)
    executor = choose_executor(device=device)
    assert isinstance(executor, expected) if isinstance(expected, type) else executor == expected


def test_every_executor_knows_the_configured_device(gpus, monkeypatch):
    gpus(4)
    assert choose_executor("processes", None, device="cuda:1") == Processes(1, "cuda:1")
    assert choose_executor("processes", 3, device="cuda:1") == Processes(3, "cuda:1")
    assert choose_executor("ray", 2, device="cpu") == RayActors(None, 2, "cpu")
    for name, value in {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    assert choose_executor(device="cuda:1") == Ranks(2, 4, 2, launch="4", device="cuda:1")
    with pytest.raises(UserError, match=r"device = 'cuda:1' with --executor ray: .* set device=cuda"):
        choose_executor("ray", 2, device="cuda:1")


@pytest.mark.parametrize(
    ("count", "device", "expected"),
    [
        (2, "auto", ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda", ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda:1", [None] * 3),
        (2, "cpu", [None] * 3),
        (0, "auto", [None] * 3),
    ],
)
def test_workers_share_all_gpus_or_none(gpus, count, device, expected):
    gpus(count)
    assert [worker_gpu(number, device) for number in range(3)] == expected


def opened_on(devices: list, root, device):
    devices.append(device)
    return work_in(root)(device)


@pytest.mark.parametrize(("device", "expected"), [("auto", "cuda:2"), ("cuda:1", None), ("cpu", None)])
def test_ranks_leave_a_chosen_device_to_the_configuration(gpus, tmp_path, device, expected):
    double, devices = gpus(4), []
    list(Ranks(0, 1, 2, device=device).run(TASKS[:2], manifest_in(tmp_path), partial(opened_on, devices, tmp_path)))
    assert devices == [expected] and double.made_current == ([2] if expected else [])


@pytest.mark.parametrize(("device", "expected"), [("auto", "cuda:1"), ("cuda:1", None), ("cpu", None)])
def test_processes_leave_a_chosen_device_to_the_configuration(gpus, tmp_path, monkeypatch, device, expected):
    double, devices, given = gpus(2), [], []
    monkeypatch.setattr(processes, "ProcessPoolExecutor", lambda *arguments: given.append(arguments[-1]) or Pool())
    ProcessWorker(partial(opened_on, devices, tmp_path), manifest_in(tmp_path), device, 3)
    ((blocks,),) = given
    assert blocks.run(TASKS[:1]) is None and blocks.run(TASKS[1:2]) is None
    assert devices == [expected] and double.made_current == ([1] if expected else [])


class Pool:
    def submit(self, *_):
        return None


@pytest.mark.parametrize(
    ("device", "gpus_each", "actors"), [("auto", 1, 2), ("cuda", 1, 2), ("cpu", 0, 1)]
)  # fmt: skip
def test_ray_actors_take_gpus_unless_work_is_for_the_cpu(tmp_path, monkeypatch, device, gpus_each, actors):
    hired = []

    class Cluster:
        def cluster_resources(self):
            return {"GPU": 2.0}

        def shutdown(self):
            pass

    monkeypatch.setattr(ray_actors, "_connect", lambda address: Cluster())
    monkeypatch.setattr(ray_actors, "dispatch", lambda tasks, manifest, hire, seats: hired.append((hire, seats)) or [])
    list(RayActors(None, None, device).run(TASKS, manifest_in(tmp_path), work_in(tmp_path)))
    ((hire, seats),) = hired
    assert (hire.args[-1], seats) == (gpus_each, actors)


def test_blocks_report_a_gpu_that_is_not_there(gpus, tmp_path):
    gpus(1)
    error = TaskRunner(work_in(tmp_path), manifest_in(tmp_path), "cuda:1").run(TASKS)
    assert isinstance(error, UserError) and "there is 1 CUDA device" in str(error)
