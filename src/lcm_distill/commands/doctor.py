"""The command that looks at the machine."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lcm_distill.commands.errors import one_line_errors
from lcm_distill.commands.options import File, Json, OtherCache, Preset, Run, Set
from lcm_distill.commands.printing import show, show_rows, working, write
from lcm_distill.commands.run_choice import Choice
from lcm_distill.report.terminal import terminal_width


def doctor(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    cache: OtherCache = None,
    json: Json = False,
) -> None:
    """Check libraries, devices, memory, disk, weights and data that a run needs, and say what to do."""
    with one_line_errors():
        chosen = Choice(preset, config, set or [], run, cache=cache).load()  # before imports, which take long
        with working("looking at this machine"):
            from lcm_distill.stages.doctor import doctor as stage
            from lcm_distill.stages.doctor import require_health

            findings = list(stage(*chosen))
        rows = [asdict(finding) for finding in findings]
        show(rows, json, lambda: show_findings(rows))
        require_health(findings)


def show_findings(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table; on a terminal remedies are lines below it, where their paths are whole."""
    if terminal_width() is None:
        show_rows(rows)
        return
    show_rows([{name: value for name, value in row.items() if name != "remedy"} for row in rows])
    for row in rows:
        if row["remedy"]:
            write(f"{row['what']}: {row['remedy']}")
