"""Commands that write or download weights."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lcm_distill.commands.choice import Choice
from lcm_distill.commands.errors import one_line_errors
from lcm_distill.commands.options import DryRun, ExistingRun, File, Json, Preset, Set
from lcm_distill.commands.show import show, show_figures, working, write


def export(
    run: ExistingRun,
    format: Annotated[
        Literal["safetensors", "pt"], typer.Option(help="pt: a plain dictionary of tensors, as the original reads it.")
    ] = "safetensors",
    out: Annotated[Path | None, typer.Option(help="File; student-export.FORMAT in the run folder by default.")] = None,
    json: Json = False,
) -> None:
    """Export the student as one file: the finished one, or that of the newest checkpoint."""
    with one_line_errors():
        from lcm_distill.stages.export import export as stage

        result = stage(*Choice(run=run).load(begins=False), format, out)
        show(result, json, lambda: show_figures(result))


def fetch(
    to: Annotated[Path, typer.Option(help="Folder for the weights; what it holds already is not downloaded again.")],
    text_only: Annotated[bool, typer.Option("--text-only", help="Text encoder only, no VAE.")] = False,
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Download VAE and text encoder for machines without network, and print the settings that use them."""
    with one_line_errors():
        import shlex

        from lcm_distill.stages import fetch as stage

        encoders = Choice(preset, config, set or []).given().encoders
        if dry_run:
            plan = stage.plan_fetch(encoders, to, text_only)
            show(plan, json, lambda: show_figures(plan))
            return
        with working("downloading"):
            settings = stage.fetch(encoders, to, text_only)
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        show(settings, json, lambda: write(shlex.join(words)))
