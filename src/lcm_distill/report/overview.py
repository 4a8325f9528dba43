"""What a run was, in a few lines: when, on what, how many steps, how long, and what it lacks."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lcm_distill.core.words import counted
from lcm_distill.report.units import format_duration

MADE_BY = {
    "figures": "`lcm evaluate`",
    "response to guidance": "`lcm evaluate --guidance 1,2,3`",
    "images during training": "`engine.validate_every` before `lcm distill`",
}
"""Parts of a page that a run may lack, and what makes each of them."""
MEASURED = ("figures", "response to guidance")
"""Those of them that protocols measure."""


def overview_lines(
    preset: str,
    device: str,
    platform: str | None,
    times: Sequence[datetime],
    trainings: Mapping[str, Mapping[str, Any]],
    seconds: float,
) -> list[list[str]]:
    """Name and value of each fact that is known.

    Args:
        device: as the configuration names it. platform: operating system and architecture.
        times: when figures were measured.
        trainings: by what they are called, `steps` and the `seconds` these took.
        seconds: of all work whose time is recorded; 0 where none is.
    """
    measured = sorted({f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC" for time in times})
    lines = [
        ["preset", preset],
        ["measured", " to ".join(dict.fromkeys([*measured[:1], *measured[-1:]]))],
        ["device", ", ".join(filter(None, [device, platform]))],
        *([name, _steps(training)] for name, training in trainings.items()),
        ["time in all", f"{format_duration(seconds)}, the sum of where time went" if seconds else ""],
    ]
    return [line for line in lines if line[1]]


def _steps(training: Mapping[str, Any]) -> str:
    if not training["steps"]:
        return ""
    return f"{counted(training['steps'], 'step')} in {format_duration(training['seconds'] or 0)}"


def lacking_text(lacking: Sequence[str], run: Path, unmeasured: str | None = None) -> str:
    """One sentence on parts that a run lacks, names of `MADE_BY`.

    Args:
        run: its folder. unmeasured: why its protocols cannot measure its captions, if so.
    """
    refused = [name for name in MEASURED if name in lacking and unmeasured]
    parts = [f"{name} ({MADE_BY[name]})" for name in lacking if name not in refused]
    if refused:
        images = f"`lcm evaluate --run {run} --images-only` makes images alone"
        why = f"{unmeasured}: set evaluate.protocols to others for `lcm evaluate --run {run}`, or {images}"
        parts.insert(0, f"{' and '.join(refused)} ({why})")
    return f"Not here yet: {'; '.join(parts)}."
