"""What commands print: results on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from lcm_distill.config import Config
    from lcm_distill.pipeline.run_folder import RunFolder
    from lcm_distill.stages.stage import Stage

PIPED_WIDTH = 140
"""Columns of a table that is written to a file or a pipe."""

screen = Console(stderr=True)


def wide() -> Console:
    """Standard output, for tables of many columns."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def show(result: Any, as_json: bool, render: Callable[[], None]) -> None:
    """Print a result as JSON, or as `render` does."""
    if as_json:
        print(json.dumps(result, default=str))
    else:
        render()


def announce(config: "Config") -> None:
    """Say on standard error which parts of a run are stand-ins or random."""
    from lcm_distill.report.tables import stand_in_notice

    for notice in stand_in_notice(config.stand_ins, "[dim]{}[/]"):
        screen.print(notice, soft_wrap=True)
    if config.encoders.weights == "random":
        screen.print(
            "[bold red]RANDOM WEIGHTS: encoders.weights = random; the cache serves to measure speed only[/]",
            soft_wrap=True,
        )


def show_plan(plans: Mapping[str, Any], as_json: bool) -> None:
    """Print what stages would do."""
    show(plans, as_json, lambda: show_figures(plans))


def show_result(stage: "Stage", config: "Config", folder: "RunFolder", as_json: bool) -> None:
    """Print what a stage has come to."""
    from lcm_distill.stages.status import inspect, status

    result = inspect(config, folder, stage.result) if stage.result else status(config, folder)[stage.name]
    show(result, as_json, lambda: _render(stage.name, folder, result))


def show_rows(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """Print rows as a table."""
    from lcm_distill.report.tables import plain_table

    wide().print(plain_table(rows, title))


def show_figures(figures: Mapping[str, Any]) -> None:
    """Print named figures, nested ones under the name of their group; groups of nothing are left out."""
    from lcm_distill.report.tables import plain_table

    rows = [{"what": name.replace("_", " "), "value": _cell(name, value)} for name, value in _flat(figures)]
    Console().print(plain_table(rows))


def _flat(figures: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{group}{name} ")
        elif value is not None and value != []:
            yield f"{group}{name}", value


def _cell(name: str, value: Any) -> str:
    """A figure with its unit, which its name tells."""
    from lcm_distill.report.units import format_bytes, format_duration

    if isinstance(value, list):
        return "\n".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    words = name.replace("_", " ").split()
    if "gb" in words:
        return format_bytes(value * 1e9)
    if "bytes" in words:
        return format_bytes(value)
    if "hours" in words:
        return format_duration(value * 3600)
    if "seconds" in words and "rows" not in words:
        return format_duration(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _render(stage: str, folder: "RunFolder", result: Any) -> None:
    if stage == "schedule":
        show_rows(result, "sigmas by number of steps")
    elif stage == "evaluate":
        _show_metrics(folder, result)
    else:
        show_figures({stage: result})


def _show_metrics(folder: "RunFolder", rows: Sequence[Mapping[str, Any]]) -> None:
    from lcm_distill.metrics.registry import figure_styles
    from lcm_distill.report.tables import metrics_table

    if rows:
        wide().print(metrics_table(rows, str(folder.metrics), figure_styles()))
    screen.print(f"images: [bold]{folder.evaluate}[/], side by side: [bold]{folder.grid}[/]")
    if folder.guidance.with_suffix(".md").is_file():
        screen.print(f"against the guidance scale: [bold]{folder.guidance}.md[/], [bold]{folder.guidance}.png[/]")
