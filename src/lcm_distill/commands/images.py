"""Commands that generate a few images to look at."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lcm_distill.commands.errors import one_line_errors
from lcm_distill.commands.options import (
    Captions,
    Count,
    Guidance,
    Json,
    Model,
    Prompts,
    Seed,
    StudentFile,
    StudentSampler,
    TeacherFile,
    integers,
)
from lcm_distill.commands.show import say, show, working


def sample(
    captions: Captions = None,
    prompts: Prompts = None,
    count: Count = 12,
    out: Annotated[Path, typer.Option(help="PNG file to write: a labelled grid.")] = Path("sample.png"),
    run: Model = "shapes",
    steps: Annotated[str, typer.Option(metavar="N,N", help="Numbers of steps of the student.")] = "1,2,4",
    guidance: Guidance = None,
    seed: Seed = 0,
    student: StudentFile = None,
    sampler: StudentSampler = "own",
    json: Json = False,
) -> None:
    """Generate images of captions with a student, as a labelled grid."""
    with one_line_errors():
        from lcm_distill.stages import sample as stage

        counts = integers("--steps", steps)
        with working("generating"):
            chosen = stage.choose_prompts(run, captions or [], prompts, count)
            result = stage.sample(run, chosen, counts, guidance, seed, out, student, sampler)
        show(result, json, lambda: say("wrote ", out))


def compare_samplers(
    captions: Captions = None,
    prompts: Prompts = None,
    count: Count = 6,
    out: Annotated[Path, typer.Option(help="PNG file to write: a labelled grid.")] = Path("compare-samplers.png"),
    run: Model = "shapes",
    steps: Annotated[int, typer.Option(min=1, help="Number of steps of both.")] = 5,
    solver: Annotated[Literal["heun", "euler"], typer.Option(help="The teacher's solver.")] = "heun",
    guidance: Guidance = None,
    seed: Seed = 0,
    student: StudentFile = None,
    teacher: TeacherFile = None,
    sampler: StudentSampler = "own",
    json: Json = False,
) -> None:
    """Generate images with teacher and student from the same noise, side by side."""
    with one_line_errors():
        from lcm_distill.stages import sample as stage

        with working("generating"):
            chosen = stage.choose_prompts(run, captions or [], prompts, count)
            result = stage.compare_samplers(run, chosen, steps, solver, guidance, seed, out, student, teacher, sampler)
        show(result, json, lambda: say("wrote ", out))
