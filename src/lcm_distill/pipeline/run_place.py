"""Where a run may begin, and what is said of paths where none is."""

from pathlib import Path

from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.run_folder import RunFolder

BESIDE_A_RUN = (".log", ".out", ".err", ".txt", ".md", ".toml", ".sh", ".sbatch", ".slurm")
"""Suffixes of logs, notes and scripts, which users keep in a run folder."""


def no_run(path: Path, remedy: str, named: str = "") -> UserError:
    """The error of a path that is no run folder, or does not exist.

    Args:
        remedy: the end of the message. named: how the user named the path where not by itself, such as an option.
    """
    if path.exists():
        return UserError(f"{named or path} is not a run folder: it has no config.toml; {remedy}")
    return UserError(f"{named or path} does not exist: {remedy}")


def require_unclaimed(run: RunFolder) -> None:
    """Check that a run which may begin in a folder finds no files of the user's there.

    Hidden files do not count, nor do logs, notes and scripts: a shell makes the log of a command before the command.

    Raises:
        UserError: it does.
    """
    if run.exists or not run.root.is_dir():
        return
    found = [path for path in sorted(run.root.iterdir()) if not path.name.startswith(".") and path not in run.parts]
    others = [path.name for path in found if path.is_dir() or path.suffix not in BESIDE_A_RUN]
    if others and not run.exists:  # which another rank may have begun since the look
        raise UserError(
            f"{run.root} holds {others[0]} and is not a run folder: it has no config.toml; give --run a folder that is "
            "empty or not there"
        )
