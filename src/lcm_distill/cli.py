"""The command line: every command, its options, and the stages that it runs."""

import logging
import os
import signal
import sys
import threading
import warnings
from dataclasses import replace
from functools import partial
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lcm_distill.commands import cache as caches
from lcm_distill.commands import config as configuration
from lcm_distill.commands import images, runs, weights
from lcm_distill.commands.doctor import doctor
from lcm_distill.commands.errors import log_thread_error, one_line_errors, say
from lcm_distill.commands.examples import epilog
from lcm_distill.commands.options import (
    AllowRandom,
    CaptionColumn,
    DryRun,
    Executor,
    File,
    ImageColumn,
    Json,
    OtherCache,
    Preset,
    RayAddress,
    Run,
    Set,
    StudentFile,
    StudentSampler,
    TeacherFile,
    TeacherSteps,
    Watch,
    Workers,
    columns,
)
from lcm_distill.commands.run_choice import Choice
from lcm_distill.commands.usage import usage_line
from lcm_distill.commands.work import How, leads, work
from lcm_distill.core.interruption import stop_at_once

app = typer.Typer(
    help="Distil a text-to-image diffusion transformer into one that generates images in one to five steps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
USAGE_ERROR: Any = typer.BadParameter.__base__
"""Of every option or argument that is wrong; typer has no name for it."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lcm-distill {metadata.version('lcm-distill')}")
        raise typer.Exit


@app.callback()
def options(
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="Least severe messages in a run's log files.")
    ] = "info",
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of all commands."""
    del version
    logging.getLogger("lcm_distill").setLevel(log_level.upper())


def precompute(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    caption_column: CaptionColumn = None,
    image_column: ImageColumn = None,
    json: Json = False,
    dry_run: DryRun = False,
    executor: Executor = "auto",
    workers: Workers = None,
    ray_address: RayAddress = None,
    retry_quarantined: Annotated[
        bool,
        typer.Option(
            "--retry-quarantined", help="Try quarantined images again whose file has appeared or changed, and captions."
        ),
    ] = False,
) -> None:
    """Stage one: encode images and captions into a cache."""
    from lcm_distill.stages.precompute import STAGE

    options = {"retry_quarantined": retry_quarantined}
    how = How(json, dry_run, executor=executor, workers=workers, ray_address=ray_address, options=options)
    work([STAGE], Choice(preset, config, [*(set or []), *columns(caption_column, image_column)], run), how)


def distill(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    cache: OtherCache = None,
    json: Json = False,
    dry_run: DryRun = False,
    allow_random_weights: AllowRandom = False,
    watch: Watch = None,
) -> None:
    """Stage two: train the few-step student on the cache."""
    from lcm_distill.stages.distill import STAGE

    work(
        [replace(STAGE, run=partial(STAGE.run, watch=watch))],
        Choice(preset, config, set or [], run, cache=cache),
        How(json, dry_run, allow_random_weights),
    )


def evaluate(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    cache: OtherCache = None,
    json: Json = False,
    dry_run: DryRun = False,
    steps: Annotated[
        str | None, typer.Option(metavar="N,N", help="Numbers of steps of the student, this time only.")
    ] = None,
    teacher_steps: TeacherSteps = None,
    guidance: Annotated[str | None, typer.Option(metavar="W,W", help="Guidance scales, this time only.")] = None,
    models: Annotated[
        str | None,
        typer.Option(metavar="M,M", help="Models to evaluate, of teacher, untrained and student, this time only."),
    ] = None,
    images_only: Annotated[bool, typer.Option("--images-only", help="Generate images only.")] = False,
    student: StudentFile = None,
    teacher: TeacherFile = None,
    sampler: StudentSampler = "own",
    executor: Executor = "auto",
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Stage three: generate images with teacher and student, and measure them."""
    from lcm_distill.commands.sweep import elsewhere, sweep
    from lcm_distill.stages.evaluate import STAGE

    how = How(
        json, dry_run, executor=executor, workers=workers, ray_address=ray_address,
        sweep=lambda config: [*sweep(config, steps, teacher_steps, guidance, models), *elsewhere(teacher, sampler)],
        options={"images_only": images_only},
    )  # fmt: skip
    stage = replace(STAGE, begins=student is not None or teacher is not None)  # nothing of the run is needed then
    work([stage], Choice(preset, config, set or [], run, student, cache), how)


def run_all(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    caption_column: CaptionColumn = None,
    image_column: ImageColumn = None,
    cache: OtherCache = None,
    json: Json = False,
    dry_run: DryRun = False,
    allow_random_weights: AllowRandom = False,
) -> None:
    """All three stages: precompute, distill, evaluate; then a page about the run."""
    from lcm_distill.stages import distill, evaluate, precompute

    stages = [precompute.STAGE, distill.STAGE, evaluate.STAGE]
    choice = Choice(preset, config, [*(set or []), *columns(caption_column, image_column)], run, cache=cache)
    work(stages, choice, How(json, dry_run, allow_random_weights, command="run"))
    if leads() and not dry_run:
        runs.write_report(choice)


def schedule(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    cache: OtherCache = None,
    json: Json = False,
    dry_run: DryRun = False,
    student: StudentFile = None,
    teacher: TeacherFile = None,
) -> None:
    """Search for the student's sampling sigmas, and store them in its checkpoint, or in a copy."""
    from lcm_distill.commands.sweep import elsewhere
    from lcm_distill.stages.schedule import STAGE

    how = How(json, dry_run, sweep=lambda config: elsewhere(teacher))
    work([STAGE], Choice(preset, config, set or [], run, student, cache), how)


def pretrain(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    caption_column: CaptionColumn = None,
    image_column: ImageColumn = None,
    cache: OtherCache = None,
    json: Json = False,
    dry_run: DryRun = False,
    allow_random_weights: AllowRandom = False,
) -> None:
    """Train a teacher by denoising; its cache is made first."""
    from lcm_distill.stages import precompute, pretrain

    choice = Choice(preset, config, [*(set or []), *columns(caption_column, image_column)], run, cache=cache)
    with one_line_errors():
        settings = choice.load()[0].pretrain
    own_cache = settings is None or settings.own_share > 0
    stages = [precompute.STAGE, pretrain.STAGE] if own_cache else [pretrain.STAGE]
    work(stages, choice, How(json, dry_run, allow_random_weights))


def ablate(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Annotated[Path, typer.Option(help="Run folder. An existing run is resumed.")] = Path("runs/ablation"),
    only: Annotated[str | None, typer.Option(metavar="STEP,STEP", help="Steps of the chain; all by default.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Number of trainings of each step, one per seed.")] = 3,
    cache: OtherCache = None,
    json: Json = False,
    dry_run: DryRun = False,
    allow_random_weights: AllowRandom = False,
    executor: Executor = "auto",
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Train and measure the chain of changes from the original recipe to the default."""
    from lcm_distill.commands.ablate import ablate as command

    how = How(json, dry_run, allow_random_weights, executor, workers, ray_address)
    command(Choice(preset, config, set or [], run, cache=cache), only.split(",") if only else [], seeds, how)


PANELS = {
    "Stages": {
        "run": run_all,
        "precompute": precompute,
        "distill": distill,
        "evaluate": evaluate,
        "schedule": schedule,
        "pretrain": pretrain,
        "ablate": ablate,
    },
    "Use": {
        "sample": images.sample,
        "compare-samplers": images.compare_samplers,
        "serve": images.serve,
        "export": weights.export,
    },
    "Inspect": {"status": runs.status, "inspect": runs.inspect, "compare": runs.compare, "report": runs.report},
    "Maintain": {"doctor": doctor, "verify": runs.verify, "fetch": weights.fetch},
}
"""The commands as `lcm --help` groups them."""
for panel, commands in PANELS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel, epilog=epilog(name))(command)
app.add_typer(configuration.app, name="config", rich_help_panel="Inspect")
app.add_typer(caches.app, name="cache", rich_help_panel="Maintain")


def _print_warning(message: Warning | str, *_: object) -> None:
    say(str(message))


def main() -> None:
    """Entry point of `lcm`."""
    # PyTorch and Arrow read these when they are imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # on shared cores spinning costs more than it saves
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # operators that Metal lacks are computed on the CPU
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # its own keeps 30 MiB for tables of a few hundred KiB
    warnings.showwarning = _print_warning
    threading.excepthook = log_thread_error
    signal.signal(signal.SIGTERM, stop_at_once)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks
    try:
        sys.exit(app(standalone_mode=False, prog_name="lcm"))
    except USAGE_ERROR as error:
        if error.format_message():  # help, where no command is given, is printed already
            say(usage_line(error, sys.argv))
        sys.exit(error.exit_code)
