"""Progress of long work: a live bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lcm_distill.core.text import printable
from lcm_distill.report.units import format_duration


class Report(Protocol):
    """How far work has come; `lcm_distill.pipeline.task.Progress` is one."""

    @property
    def label(self) -> str:
        """What is being done."""
        ...

    @property
    def done(self) -> int:
        """Units that are done."""
        ...

    @property
    def total(self) -> int:
        """Units there are."""
        ...

    @property
    def unit(self) -> str:
        """Name of the units."""
        ...

    @property
    def counts(self) -> Mapping[str, float | int | str]:
        """Other figures, by name."""
        ...

    @property
    def resumed(self) -> int:
        """Units that an earlier run had done."""
        ...


PLAIN_LINE_SECONDS = 10.0
BARS = 10
"""Bars that stay on the terminal; more than it has lines would hide the newest."""


def show_progress(reports: Iterable[Report], console: Console) -> None:
    """Exhaust `reports`, showing each on `console`."""
    if console.is_terminal:
        _show_bars(reports, console)
    else:
        for line in plain_lines(reports):
            print(printable(line), file=sys.stderr if console.stderr else sys.stdout, flush=True)


def plain_lines(reports: Iterable[Report], clock: Callable[[], float] = time.monotonic) -> Iterator[str]:
    """A line when work with a new label begins, every `PLAIN_LINE_SECONDS`, and one when it is complete.

    Args:
        clock: seconds, rising.
    """
    label, began, last_line, complete = "", 0.0, 0.0, False
    for report in reports:
        now = clock()
        if report.label != label:
            label, began, last_line, complete = report.label, now, now - PLAIN_LINE_SECONDS, False
        was_complete, complete = complete, report.done == report.total
        if complete and was_complete:
            continue
        if complete or now - last_line >= PLAIN_LINE_SECONDS:
            last_line = now
            yield _line(report, now - began)


def _show_bars(reports: Iterable[Report], console: Console) -> None:
    columns = (
        TextColumn("{task.description:>12}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console) as bars:
        bar: TaskID | None = None
        label, began = "", 0.0
        for report in reports:
            if bar is None or report.label != label:
                label, began = report.label, time.monotonic()
                bar = bars.add_task(printable(label), total=report.total, detail="")
                if len(bars.task_ids) > BARS:
                    bars.remove_task(bars.task_ids[0])
            detail = printable(_figures(report, time.monotonic() - began))
            bars.update(bar, completed=report.done, total=report.total, detail=detail)


def _line(report: Report, seconds: float) -> str:
    rate = _rate(report, seconds)
    unfinished = rate and report.done < report.total
    left = f", {format_duration((report.total - report.done) / rate)} left" if unfinished else ""
    return f"{report.label}: {_figures(report, seconds)}{left}"


def _figures(report: Report, seconds: float) -> str:
    parts = [f"{report.done:,}/{report.total:,} {report.unit}"]
    rate = _rate(report, seconds)
    if rate:
        parts.append(f"{rate:,.1f}/s")
    parts += [f"{name.replace('_', ' ')} {_short(value)}" for name, value in report.counts.items()]
    return ", ".join(parts)


def _rate(report: Report, seconds: float) -> float:
    """Units a second in this run; 0 while it is unknown."""
    fresh = report.done - report.resumed
    return fresh / seconds if fresh > 0 and seconds > 0 else 0.0


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
