# Ray is an extra and ships partial types.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Ray actors, one for each GPU of the cluster. Run folder and data must have the same paths on all its machines."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from lcm_distill.core.errors import UserError
from lcm_distill.core.logs import log_settings
from lcm_distill.pipeline.executors.devices import count_threads
from lcm_distill.pipeline.executors.dispatch import dispatch
from lcm_distill.pipeline.executors.interface import Commit, Open
from lcm_distill.pipeline.executors.runner import TaskRunner
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.task import Task


@dataclass(frozen=True)
class RayActors:
    """Runs tasks in Ray actors.

    Attributes:
        address: of the cluster; None joins the one this machine belongs to, or starts one here.
        workers: number of actors; None takes as many as the cluster has GPUs, or one.
        device: the configured device; with `auto` and `cuda` each actor gets a GPU if the cluster has any.
    """

    address: str | None
    workers: int | None
    device: str = "auto"
    leads = True

    def run(self, tasks: Sequence[Task], manifest: Manifest, open_work: Open) -> Iterator[Commit]:
        """Execute and commit what is not committed yet; an actor that dies is replaced.

        Raises:
            UserError: Ray is not installed, or there is no such cluster.
        """
        ray = _connect(self.address)
        gpus = int(ray.cluster_resources().get("GPU", 0)) if self.device in ("auto", "cuda") else 0
        start_worker = partial(RayWorker, ray, open_work, manifest, 1 if gpus else 0)
        try:
            yield from dispatch(tasks, manifest, start_worker, self.workers or gpus or 1)
        finally:
            ray.shutdown()


class RayWorker:
    """An actor that runs chunks of tasks.

    Args:
        gpus: GPUs that it reserves, 0 or 1.
        slot: number of the worker, counted from 0.
    """

    def __init__(self, ray: Any, open_work: Open, manifest: Manifest, gpus: int, slot: int) -> None:
        self._ray = ray
        # Ray gives an actor one thread; sums by another number of threads than here would differ in their last bits.
        environment = {"env_vars": {"OMP_NUM_THREADS": str(count_threads())}}
        actor = ray.remote(TaskRunner).options(num_cpus=1, num_gpus=gpus, runtime_env=environment)
        # Ray shows an actor only the GPU that is its own, so the device needs no name.
        self._actor = actor.remote(open_work, manifest, None, log_settings())

    def submit(self, tasks: Sequence[Task]) -> Future[UserError | None]:
        """Start a chunk."""
        return self._actor.run.remote(tasks).future()

    def stop(self) -> None:
        """Kill the actor."""
        self._ray.kill(self._actor)


def _connect(address: str | None) -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError("--executor ray needs Ray: pip install 'lcm-distill[ray]'") from error
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--ray-address {address}: {reason}: give the address of a running cluster") from error
    return ray
