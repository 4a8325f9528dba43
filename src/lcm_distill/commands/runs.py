"""Commands that look at runs: their progress, tables, figures and files."""

from pathlib import Path
from typing import Annotated

import typer

from lcm_distill.commands.errors import one_line_errors
from lcm_distill.commands.options import ExistingRun, Json
from lcm_distill.commands.ownership import owning
from lcm_distill.commands.printing import say, show, show_figures, show_rows, show_written, write, write_csv
from lcm_distill.commands.run_choice import Choice
from lcm_distill.commands.work import show_progress
from lcm_distill.core.errors import UserError


def status(run: ExistingRun, json: Json = False) -> None:
    """Show the progress of a run, and what it quarantined."""
    with one_line_errors():
        from lcm_distill.stages.status import status as stage

        result = stage(*Choice(run=run).load(begins=False))
        show(result, json, lambda: show_figures(result))


def inspect(
    sql: Annotated[
        str,
        typer.Argument(help="Query over samples, captions, manifest, events, images, scores, metrics, guidance ..."),
    ],
    run: ExistingRun,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the rows as CSV on standard output.")] = False,
) -> None:
    """Run SQL over a run, with DuckDB."""
    with one_line_errors():
        from lcm_distill.stages.queries import select

        if json and csv:
            raise UserError("--json and --csv exclude each other")
        names, rows = select(*Choice(run=run).load(begins=False), sql)
        show(rows, json, lambda: write_csv(names, rows) if csv else show_rows(rows))


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders with results of `lcm evaluate`.")],
    out: Annotated[Path, typer.Option(help="Result, with suffixes .md and .parquet; charts after its name.")] = Path(
        "compare"
    ),
    json: Json = False,
) -> None:
    """Compare the metrics of several runs in one table and a chart a figure."""
    with one_line_errors():
        from lcm_distill.stages.compare import compare as stage

        rows = stage(runs, out)
        show(rows, json, lambda: write(out.with_suffix(".md").read_text()))
        show_written(out)


def report(
    run: ExistingRun,
    out: Annotated[Path | None, typer.Option(help="The page; report.html in the run folder by default.")] = None,
) -> None:
    """Write one HTML page about a run: figures, images, training curves, what was left out, and provenance."""
    write_report(Choice(run=run), out)


def write_report(choice: Choice, out: Path | None = None) -> None:
    """Write the page about a run, by default into its folder, and say where it is."""
    with one_line_errors():
        from lcm_distill.stages.report import NAME
        from lcm_distill.stages.report import report as stage

        config, folder = choice.load(begins=False)
        page = out or folder.root / NAME
        stage(config, folder, page)
        say("report: ", page)


def verify(
    run: ExistingRun,
    repair: Annotated[bool, typer.Option("--repair", help="Repair it: encode what is damaged again.")] = False,
    json: Json = False,
) -> None:
    """Check every row of a run's cache against its recorded checksums."""
    with one_line_errors():
        from lcm_distill.data.cache.shared_cache import require_own
        from lcm_distill.pipeline.atomic_writes import remove_orphans
        from lcm_distill.stages.verify import Verification

        choice = Choice(run=run)
        if not repair:
            verification = Verification(*choice.load(begins=False))
            show_progress(verification.check())
        else:
            with owning(choice, "verify --repair", ["precompute"], begins=False) as (config, folder):
                remove_orphans(folder.root)
                require_own(config.cache, folder, "verify --repair")
                verification = Verification(config, folder)
                show_progress(verification.check())
                if verification.damage:
                    show_progress(verification.repair())
        result = verification.result()
        if not json and result["damage"]:
            show_rows(result["damage"], "damaged")
        show(result, json, lambda: show_figures({name: value for name, value in result.items() if name != "damage"}))
        verification.raise_if_broken()
