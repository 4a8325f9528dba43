"""Paths as a page shows them that is passed on: none says where on a machine a run lies."""

from pathlib import Path

from lcm_distill.assets import SHAPES

SHIPPED = SHAPES.parts[-3:]
"""Where weights that ship lie, below any installation."""
KEPT = 2
"""Last parts of other absolute paths that are shown: a name, and that of its folder or run."""


def portable_path(path: str, root: Path) -> str:
    """A path of a run's file below the run's folder, of weights that ship below the package, of any other its end.

    Args:
        path: as it was recorded, from whatever folder, or what is no path, which stays as it is.
        root: the run folder, wherever it is by now.
    """
    parts = Path(path).parts
    for place in range(len(parts) - 1, 0, -1):
        rest = Path(*parts[place:])
        if parts[place - 1] == root.absolute().name and (root / rest).exists():
            return str(rest)
    for place in range(len(parts)):
        if parts[place : place + len(SHIPPED)] == SHIPPED:
            return str(Path(*parts[place:]))
    return str(Path("...", *parts[-KEPT:])) if Path(path).is_absolute() and len(parts) > KEPT + 1 else path
