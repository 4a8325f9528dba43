"""A copy from a GPU is waited for where it is read, and nowhere else."""

from types import SimpleNamespace
from typing import cast

import torch

from lcm_distill.encoders.host_copies import HostCopy


def test_from_the_cpu_it_is_there_at_once():
    assert HostCopy(torch.arange(3)).numpy().tolist() == [0, 1, 2]


def test_from_a_gpu_it_is_read_when_the_event_behind_it_has_passed(monkeypatch):
    done: list[object] = []

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking

        def record(self, stream: str) -> None:
            done.append(("recorded", stream))

        def synchronize(self) -> None:
            done.append("waited")

    def copy(device: str, non_blocking: bool) -> torch.Tensor:
        done.append((device, non_blocking))
        return torch.arange(3)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    returning = HostCopy(cast(torch.Tensor, SimpleNamespace(is_cuda=True, device="cuda:1", to=copy)))
    assert done == [("cpu", True), ("recorded", "stream of cuda:1")]
    assert returning.numpy().tolist() == [0, 1, 2] and done[2:] == ["waited"]
