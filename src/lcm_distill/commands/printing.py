"""What commands print: results on standard output, everything else on standard error."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lcm_distill.core.printable_text import printable
from lcm_distill.report.terminal import naming, print_table, screen, terminal_width

if TYPE_CHECKING:
    from lcm_distill.config import Config
    from lcm_distill.pipeline.run_folder import RunFolder
    from lcm_distill.stages.stage import Stage


def show(result: Any, as_json: bool, render: Callable[[], None]) -> None:
    """Print a result as JSON, or as `render` does."""
    if as_json:
        print(_json(result).replace("\x7f", "\\u007f"))
    else:
        render()


def _json(value: Any) -> str:
    """JSON that any reader takes: a number that is not finite is null, and one of fixed digits a number."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in cast(Sequence[Any], value)]
    if isinstance(value, Decimal):  # sums of whole numbers too
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def write(text: str) -> None:
    """Print text as a result, with what a terminal would obey as escapes."""
    print(printable(text))


def write_csv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as CSV, the names of columns first: lists and records as JSON, no value empty, controls escaped."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    for cells in (names, *(row.values() for row in rows)):
        table.writerow([printable(_csv_cell(value)) for value in cells])


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return _json(value) if isinstance(value, bool | list | dict) else str(value)


def say(*parts: str | Path) -> None:
    """Print a sentence on standard error, its paths bold."""
    screen.print(naming(*parts), soft_wrap=True)


def working(what: str) -> AbstractContextManager[object]:
    """Say on standard error that something is under way, while the block runs."""
    return screen.status(what)


def show_written(stem: Path) -> None:
    """Say where the charts and the rows of a result are, which `write_up` has written under this name."""
    from lcm_distill.report.write_up import written_charts

    files = [*written_charts(stem), stem.with_suffix(".parquet")]
    say("charts and rows: ", *[part for path in files for part in (path, ", ")][:-1])


def announce(config: "Config") -> None:
    """Say on standard error which parts of a run are stand-ins or random."""
    from lcm_distill.report.tables import stand_in_notice

    for notice in stand_in_notice(config.stand_ins, "{}"):
        screen.print(notice, style="dim", soft_wrap=True)
    if config.encoders.weights == "random":
        screen.print(
            "RANDOM WEIGHTS: encoders.weights = random; the cache serves to measure speed only",
            style="bold red",
            soft_wrap=True,
        )


def show_plan(plans: Mapping[str, Any], as_json: bool, last_line: str | None) -> None:
    """Print what stages would do; a table does not say what the last line of the command is about to say."""
    show(plans, as_json, lambda: show_figures(_without(plans, last_line)))


def _without(figures: Mapping[str, Any], line: str | None) -> dict[str, Any]:
    left: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            left[name] = _without(cast(Mapping[str, Any], value), line)
        elif isinstance(value, list):
            left[name] = [own for own in cast(list[Any], value) if own != line]
        elif value != line:
            left[name] = value
    return left


def show_result(stage: "Stage", config: "Config", folder: "RunFolder", as_json: bool) -> None:
    """Print what a stage has come to."""
    from lcm_distill.stages.queries import inspect
    from lcm_distill.stages.status import status

    result = inspect(config, folder, stage.result) if stage.result else status(config, folder)[stage.name]
    show(result, as_json, lambda: _render(stage.name, folder, result))


def show_rows(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """Print rows as a table."""
    from lcm_distill.report.tables import plain_table

    print_table(plain_table(rows, title))


def show_figures(figures: Mapping[str, Any]) -> None:
    """Print named figures with their units; those of a group, such as a stage, in a table of their own."""
    from lcm_distill.report.tables import plain_table

    single = {name: value for name, value in figures.items() if not isinstance(value, Mapping)}
    groups: list[tuple[str, Mapping[str, Any]]] = [
        ("", single),
        *((name, value) for name, value in figures.items() if isinstance(value, Mapping)),
    ]
    for title, group in groups:
        rows = [{"what": _label(name), "value": _cell(name, value)} for name, value in _flat(group)]
        if rows:
            print_table(plain_table(rows, title or None))


def _flat(figures: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    """Figures that have a value, after their names; those of nested groups after the group's as well."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(cast(Mapping[str, Any], value), f"{group}{name}: ")
        elif value is not None and value != []:
            yield f"{group}{name}", value


LABELS = {
    "gb_here": "memory of this device",
    "gb_of_a_checkpoint": "checkpoint",
    "gb_on_disk": "disk",
    "hours_here": "time",
}


def _label(name: str) -> str:
    """A figure's name in words, without its unit."""
    memory = "memory " if name.startswith("gb_") else ""
    return LABELS.get(name, memory + name.removeprefix("gb_").removesuffix("_about").replace("_", " "))


def _cell(name: str, value: Any) -> str:
    """A figure with its unit, which its name ends or begins with."""
    from lcm_distill.report.units import format_bytes, format_duration

    if isinstance(value, list):
        return "\n".join(map(str, cast(list[object], value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if name.startswith("gb_"):
        return format_bytes(value * 1e9)
    if "bytes" in name.split("_"):
        return format_bytes(value)
    if name.startswith("hours_"):
        return format_duration(value * 3600)
    if name.startswith("seconds_"):
        return format_duration(value)
    if isinstance(value, float) and abs(value) < 1_000:
        return f"{value:.4g}"
    return f"{value:,.0f}"


def _render(stage: str, folder: "RunFolder", result: Any) -> None:
    if stage == "schedule":
        show_rows(result, "sigmas by number of steps")
    elif stage == "evaluate":
        _show_metrics(folder, result)
    else:
        show_figures({stage: result})


def _show_metrics(folder: "RunFolder", rows: Sequence[Mapping[str, Any]]) -> None:
    from lcm_distill.metrics.figure_styles import FIGURE_STYLES
    from lcm_distill.report.tables import metrics_table

    if rows:
        print_table(metrics_table(rows, str(folder.metrics), FIGURE_STYLES, terminal_width()))
    say("images: ", folder.evaluate, ", side by side: ", folder.grid)
    if folder.guidance.with_suffix(".md").is_file():
        say("against the guidance scale: ", Path(f"{folder.guidance}.md"), ", ", Path(f"{folder.guidance}-*.png"))
    if (folder.root / "report.html").is_file():
        say("for these figures in its page: lcm report --run ", folder.root)
