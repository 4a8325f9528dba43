"""`lcm config`: presets, every key with its value, and how configurations differ."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lcm_distill.commands.errors import one_line_errors
from lcm_distill.commands.examples import epilog
from lcm_distill.commands.options import File, Json, Preset, Set
from lcm_distill.commands.printing import show, show_rows, write
from lcm_distill.commands.run_choice import Choice
from lcm_distill.core.errors import UserError

app = typer.Typer(help="Configurations: presets, keys, differences.", no_args_is_help=True, epilog=epilog("config"))


@app.command(epilog=epilog("config presets"))
def presets(json: Json = False) -> None:
    """List presets."""
    with one_line_errors():
        from lcm_distill import config

        rows = [{"preset": name, "for": config.summary(name)} for name in config.presets()]
        show(rows, json, lambda: show_rows(rows))


@app.command(name="show", epilog=epilog("config show"))
def show_config(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Annotated[Path | None, typer.Option(help="Run folder, whose configuration is shown.")] = None,
    json: Json = False,
) -> None:
    """Print every key with its value, type and meaning."""
    with one_line_errors():
        from lcm_distill.config.describe import describe

        choice = Choice(preset, config, set or [], run)
        loaded = choice.load(begins=False)[0] if run else choice.given()
        rows = [asdict(key) for key in describe(loaded)]
        show(rows, json, lambda: write("\n".join(map(_paragraph, rows))))


@app.command(epilog=epilog("config diff"))
def diff(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    other: Annotated[Path | None, typer.Argument(help="Run folder to compare it with.")] = None,
    preset: Preset = None,
    json: Json = False,
) -> None:
    """Compare a run's configuration with another run's, or with a preset: the one it was made from by default."""
    with one_line_errors():
        from lcm_distill.config import load_preset
        from lcm_distill.config.describe import differing

        if other and preset:
            raise UserError("--preset and a second run exclude each other")
        own = Choice(run=run).load(begins=False)[0]
        theirs = Choice(run=other).load(begins=False)[0] if other else load_preset(preset or own.preset)
        name = str(other) if other else f"preset {preset or own.preset}"
        rows = [{"key": key, str(run): a, name: b} for key, (a, b) in differing(own, theirs).items()]
        show(rows, json, lambda: show_rows(rows) if rows else write("no difference"))


def _paragraph(row: dict[str, object]) -> str:
    about = f"{row['help']} Once work has begun, another value {row['on_resume']}."
    return f"{row['name']} = {row['value']}  ({row['type']})\n    {about}"
