"""Progress of long work: a live bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from lcm_distill.core.printable_text import printable
from lcm_distill.report.units import format_duration, format_rate


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
LABEL_WIDTH, BAR_WIDTH, TIME_WIDTH = 12, 20, 9
"""Columns of a bar's line beside its figures: a label, which may be longer, the bar, and the time left."""


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
    label_column = TextColumn(f"{{task.description:>{LABEL_WIDTH}}}", markup=False)
    figures = _FittingFigures(console)
    with Bars(label_column, BarColumn(BAR_WIDTH), figures, TimeRemainingColumn(), console=console) as bars:
        bar: TaskID | None = None
        label, began = "", 0.0
        for report in reports:
            if bar is None or report.label != label:
                label, began = report.label, time.monotonic()
                figures.longest_label = max(figures.longest_label, len(printable(label)))
                bar = bars.add_task(printable(label), total=report.total, figures=[])
                if len(bars.task_ids) > BARS:
                    bars.remove_task(bars.task_ids[0])
            shown = [printable(figure) for figure in _figures(report, time.monotonic() - began)]
            bars.update(bar, completed=report.done, total=report.total, figures=shown)


class _FittingFigures(ProgressColumn):
    """As many figures of a bar as its line has room for, the first ones first; the first is always shown.

    Attributes:
        longest_label: characters of the longest label so far.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console, self.longest_label = console, LABEL_WIDTH

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        figures = list[str](task.fields["figures"])
        room = self.console.width - self.longest_label - BAR_WIDTH - TIME_WIDTH - 3  # a space between two columns
        while len(figures) > 1 and len(", ".join(figures)) > room:
            figures.pop()
        return Text(", ".join(figures), no_wrap=True)


def _line(report: Report, seconds: float) -> str:
    rate = _rate(report, seconds)
    unfinished = rate and report.done < report.total
    left = f", {format_duration((report.total - report.done) / rate)} left" if unfinished else ""
    return f"{report.label}: {', '.join(_figures(report, seconds))}{left}"


def _figures(report: Report, seconds: float) -> list[str]:
    """Figures in words, the most important first."""
    parts = [f"{report.done:,}/{report.total:,} {report.unit}"]
    rate = _rate(report, seconds)
    if rate:
        parts.append(format_rate(rate))
    return parts + [f"{name.replace('_', ' ')} {_short(value)}" for name, value in report.counts.items()]


def _rate(report: Report, seconds: float) -> float:
    """Units a second in this run; 0 while it is unknown."""
    fresh = report.done - report.resumed
    return fresh / seconds if fresh > 0 and seconds > 0 else 0.0


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
