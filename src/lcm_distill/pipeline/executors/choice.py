"""Which executor a command gets."""

from dataclasses import replace
from typing import Literal

from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.executors.processes import Processes
from lcm_distill.pipeline.executors.ranks import launched_ranks
from lcm_distill.pipeline.executors.ray_actors import RayActors
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.executors.work import Executor, spread_over

Name = Literal["auto", "serial", "processes", "ranks", "ray"]


def choose_executor(
    name: Name = "auto", workers: int | None = None, ray_address: str | None = None, device: str = "auto"
) -> Executor:
    """An executor by name.

    `auto` is the ranks that a launcher started, else a process a GPU where there are several (or `workers` of them),
    else this process alone. A device that is one card (`cuda:1`) or a CPU is the device of every worker.

    Args:
        device: that is configured.

    Raises:
        UserError: the options do not go together, or no launcher started ranks.
    """
    ranks, gpus = launched_ranks(), spread_over(device)
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
