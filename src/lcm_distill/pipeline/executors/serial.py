"""Tasks one after the other, in this process."""

from collections.abc import Iterator, Sequence

from lcm_distill.pipeline.executors.heartbeats import remove_dead_workers
from lcm_distill.pipeline.executors.interface import Commit, Open
from lcm_distill.pipeline.executors.runner import commit_each, split
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.task import Task


class Serial:
    """Runs tasks in this process."""

    leads = True

    def run(self, tasks: Sequence[Task], manifest: Manifest, open_work: Open) -> Iterator[Commit]:
        """Execute and commit what is not committed yet."""
        done, pending = split(tasks, manifest)
        yield from done
        remove_dead_workers(manifest.storage)
        if not pending:
            return
        manifest.drop(task.name for task in pending)
        yield from commit_each(open_work(None), pending, manifest)
