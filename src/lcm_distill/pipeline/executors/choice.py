"""The executor that a command's options ask for."""

from dataclasses import replace
from typing import Literal

from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.executors.devices import shared_gpus
from lcm_distill.pipeline.executors.interface import Executor
from lcm_distill.pipeline.executors.processes import Processes
from lcm_distill.pipeline.executors.ranks import launched_ranks
from lcm_distill.pipeline.executors.ray_actors import RayActors
from lcm_distill.pipeline.executors.serial import Serial

Name = Literal["auto", "serial", "processes", "ranks", "ray"]


def choose_executor(
    name: Name = "auto", workers: int | None = None, ray_address: str | None = None, device: str = "auto"
) -> Executor:
    """An executor by name.

    `auto` is the ranks that a launcher started, else one process for each GPU where there are several (or `workers`
    processes), else this process alone. Where the device is one GPU (`cuda:1`) or a CPU, every worker uses it.

    Args:
        workers: number of processes or actors.
        ray_address: address of a Ray cluster.
        device: the configured device.

    Raises:
        UserError: the options do not go together, or no launcher started ranks.
    """
    ranks, gpus = launched_ranks(), shared_gpus(device)
    if name == "auto":
        several = (workers or gpus) > 1
        name = "ray" if ray_address else "ranks" if ranks else "processes" if several else "serial"
    if ray_address and name != "ray":
        raise UserError(f"--ray-address goes with --executor ray, not {name}")
    if workers and name in ("serial", "ranks"):
        raise UserError(f"--workers goes with --executor processes or ray, not {name}")
    if name == "ray" and device.startswith("cuda:"):
        raise UserError(f"device = {device!r} with --executor ray: Ray gives each actor its own GPU, set device=cuda")
    match name:
        case "processes":
            return Processes(workers or gpus or 1, device)
        case "ray":
            return RayActors(ray_address, workers, device)
        case "serial":
            return Serial()
        case "ranks":
            if ranks is None:
                raise UserError("--executor ranks wants `torchrun --nproc-per-node 8 --no-python -- lcm ...`")
            return replace(ranks, device=device)
