"""The run that a command owns while it works."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lcm_distill.commands.run_choice import Choice

if TYPE_CHECKING:
    from lcm_distill.config import Assignment, Config
    from lcm_distill.pipeline.run_folder import RunFolder

STAGES = ("precompute", "pretrain", "distill", "schedule", "evaluate", "ablate")
"""What can be owned of a run, in the order in which it is taken."""
OTHERS = "or choose another --run"
CHANGES = "leave out --set, which changes the configuration of every stage"


@contextmanager
def owning(
    choice: Choice, command: str, stages: Sequence[str], begins: bool = True, settings: "Sequence[Assignment]" = ()
) -> "Generator[tuple[Config, RunFolder]]":
    """Configuration and run folder, read once these stages of the run have no other owner, while the block runs.

    A command that begins a run or changes its configuration owns all stages. Of launched ranks the first one owns, and
    the others wait until it does.

    Args:
        command: its name, which others are told.
        begins, settings: as `Choice.load` takes them.

    Raises:
        UserError: a stage has another owner, or as `Choice.load`; nothing was changed.
        WorkError: the first rank does not begin.
    """
    from lcm_distill.pipeline.executors.ranks import launched_ranks
    from lcm_distill.pipeline.lock import await_owner, owned

    ranks, wanted = launched_ranks(), [stage for stage in STAGES if stage in stages]
    # A look without the lock: what is wrong is refused before a folder is made.
    config, folder = choice.load(begins, settings)
    if ranks and not ranks.leads:
        await_owner(folder.root, wanted[0], ranks.launch, OTHERS)
        yield choice.load(begins, settings)
        return
    changes = folder.is_changed_by(config)
    for _ in range(2):
        taken = STAGES if changes else wanted
        remedy = f"{CHANGES}, {OTHERS}" if changes and folder.exists else OTHERS
        with owned(folder.root, taken, command, remedy, ranks.launch if ranks else ""):
            config, folder = choice.load(begins, settings)
            if changes or not folder.is_changed_by(config):
                yield config, folder
                return
        changes = True  # by another command, since the look
