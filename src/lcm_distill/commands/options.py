"""Options that several commands have, so that each is spelt and explained once."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lcm_distill.commands.errors import one_line_errors
from lcm_distill.core.errors import UserError

if TYPE_CHECKING:
    from lcm_distill.config import Assignment


def complete_preset(incomplete: str) -> list[str]:
    """Names of presets, for the shell's completion."""
    from lcm_distill.config import presets

    return [name for name in presets() if name.startswith(incomplete)]


def known_preset(name: str | None) -> str | None:
    """The preset, if it ships: any other is refused before a command imports what it works with."""
    if name is not None:
        from lcm_distill.config import require_preset

        with one_line_errors():
            require_preset(name)
    return name


def complete_key(incomplete: str) -> list[str]:
    """Keys of the configuration, for the shell's completion of `--set`."""
    from lcm_distill.config import load_preset
    from lcm_distill.config.describe import describe

    return [f"{key.name}=" for key in describe(load_preset("shapes")) if key.name.startswith(incomplete)]


Preset = Annotated[
    str | None,
    typer.Option(
        help="Preset; see `lcm config presets`. An existing run keeps its own.",
        autocompletion=complete_preset,
        callback=known_preset,
    ),
]
File = Annotated[Path | None, typer.Option("--config", help="Configuration file of a new run, in the presets' form.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set one key: section.key=value. Repeatable.", autocompletion=complete_key
    ),
]
CaptionColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Field or column of the captions, alone: data.captions. A dot leads into a record."
    ),
]
ImageColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Field or column of the images: data.image_column.")
]
Run = Annotated[Path | None, typer.Option(help="Run folder; runs/PRESET by default.")]
ExistingRun = Annotated[Path, typer.Option("--run", help="Run folder.")]
Model = Annotated[str, typer.Option("--run", help="Run folder, student file, or `shapes` for the model that ships.")]
StudentFile = Annotated[
    Path | None,
    typer.Option("--student", help="Student's checkpoint from elsewhere, instead of the run's; this time only."),
]
TeacherFile = Annotated[
    Path | None, typer.Option("--teacher", help="Teacher's checkpoint, instead of model.teacher; this time only.")
]
TeacherSteps = Annotated[
    str | None,
    typer.Option(
        metavar="N,N",
        help="Numbers of steps of the teacher, with each of its solvers, this time only; evaluate.teacher by default.",
    ),
]
StudentSampler = Annotated[
    Literal["own", "original"],
    typer.Option("--sampler", help="The student's sigmas: its own, or those of MicroDiT's published student."),
]
OtherCache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="RUN",
        help="Run whose cache is used, instead of one of this run's. A new run takes seed, data, encoders "
        "and cache from there, and without --preset or --config the rest as well.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan: work, memory, time and what is missing.")]
AllowRandom = Annotated[
    bool,
    typer.Option("--allow-random-weights", help="Train although encoders.weights = random, to measure speed only."),
]
Executor = Annotated[
    Literal["auto", "serial", "processes", "ranks", "ray"],
    typer.Option(help="Where tasks run. auto: the launched ranks, one process per GPU, or this process."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes or Ray actors; one per GPU by default.")]
RayAddress = Annotated[str | None, typer.Option(help="Address of a Ray cluster; a local one is started by default.")]
Watch = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Every N steps add a row of images of eight held-out captions to distill/watch.png, this time only. "
        "Training waits while a row loads VAE and text encoder and generates them.",
    ),
]
Captions = Annotated[list[str] | None, typer.Argument(metavar="[CAPTION]...", help="Captions to generate images of.")]
Prompts = Annotated[
    str | None,
    typer.Option(metavar="parti|held-out|FILE", help="Captions from a file (.csv, .json, .tsv, .txt) instead."),
]
Count = Annotated[int, typer.Option(min=1, help="Number of captions taken from --prompts, evenly spread.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale, 0 or more; the run's first one by default.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the noise.")]


def columns(captions: str | None, images: str | None) -> "list[Assignment]":
    """The assignments that `--caption-column` and `--image-column` stand for."""
    assigned: list[Assignment] = []
    if captions is not None:
        assigned.append((f"--caption-column '{captions}'", f"data.captions={{{_quoted(captions)}=1.0}}"))
    if images is not None:
        assigned.append((f"--image-column '{images}'", f"data.image_column={_quoted(images)}"))
    return assigned


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def integers(option: str, text: str) -> list[int]:
    """The numbers of a list option, such as `1,2,4`.

    Raises:
        UserError: it is no list of integers.
    """
    return _numbers(option, text, int, "1,2,4")


def numbers(option: str, text: str) -> list[float]:
    """The numbers of a list option, such as `1,1.5,3`.

    Raises:
        UserError: it is no list of numbers.
    """
    return _numbers(option, text, float, "1,1.5,3")


def _numbers(option: str, text: str, kind: type[Any], example: str) -> list[Any]:
    try:
        return [kind(number) for number in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} {text}: give numbers separated by commas, such as {example}") from error
