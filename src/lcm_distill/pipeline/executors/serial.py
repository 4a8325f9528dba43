"""Tasks one after the other, in this process."""

from collections.abc import Iterator, Sequence

from lcm_distill.pipeline.executors.board import clear_board
from lcm_distill.pipeline.executors.work import Commit, Open, commit_each, split
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.task import Task


class Serial:
    """Runs tasks here."""

    leads = True

    def run(self, tasks: Sequence[Task], manifest: Manifest, open_work: Open) -> Iterator[Commit]:
        """Execute and commit what is not done."""
        done, pending = split(tasks, manifest)
        yield from done
        if not pending:
            return
        clear_board(manifest.storage)
        manifest.drop(task.name for task in pending)
        yield from commit_each(open_work(None), pending, manifest)
