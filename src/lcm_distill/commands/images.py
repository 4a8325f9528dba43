"""Commands that generate images to look at."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from lcm_distill.commands.printing import say, show, working
from lcm_distill.commands.work import show_progress
from lcm_distill.core.errors import UserError
from lcm_distill.core.words import counted

if TYPE_CHECKING:
    from lcm_distill.evaluation.prompt_files import Prompt
    from lcm_distill.pipeline.task import Progress
    from lcm_distill.stages.sample import Made

Out = Annotated[
    Path, typer.Option(help="PNG file to write, a labelled sheet; or a folder, for every image by itself as well.")
]
Format = Annotated[
    Literal["png", "jpeg", "webp"] | None, typer.Option(help="Of single images in a folder; PNG by default.")
]


def sample(
    captions: Captions = None,
    prompts: Prompts = None,
    count: Count = 12,
    out: Out = Path("sample.png"),
    format: Format = None,
    run: Model = "shapes",
    steps: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Numbers of steps; 1,2,4 of a student, 30 of a teacher by default."),
    ] = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    student: StudentFile = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Teacher's checkpoint, which generates instead of a student, by Heun's method.")
    ] = None,
    sampler: StudentSampler = "own",
    json: Json = False,
) -> None:
    """Generate images of captions with a student, or a teacher: a labelled sheet, or a folder of images."""
    with one_line_errors():
        from lcm_distill.stages import sample as stage

        if teacher and (student or sampler != "own"):
            raise UserError("--teacher excludes --student and --sampler: `lcm compare-samplers` has both models")
        counts = integers("--steps", steps) if steps is not None else None
        chosen = stage.choose_prompts(run, captions or [], prompts, count)
        _warn(run, chosen, student or teacher)
        made = stage.sample(run, chosen, counts, guidance, seed, out, student, sampler, format, teacher)
        _finish(made, json)


def compare_samplers(
    captions: Captions = None,
    prompts: Prompts = None,
    count: Count = 6,
    out: Out = Path("compare-samplers.png"),
    format: Format = None,
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

        chosen = stage.choose_prompts(run, captions or [], prompts, count)
        _warn(run, chosen, student or teacher)
        made = stage.compare_samplers(
            run, chosen, steps, solver, guidance, seed, out, student, teacher, sampler, format
        )
        _finish(made, json)


def serve(
    run: Model = "shapes",
    student: StudentFile = None,
    teacher: TeacherFile = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
) -> None:
    """Serve a page that generates images: the student beside its teacher, and over guidance scales."""
    with one_line_errors():
        from lcm_distill.commands import serve_page

        serve_page.require_gradio()
        with TemporaryDirectory(prefix="lcm-serve-") as images:
            with working("opening the models"):
                from lcm_distill.stages.serve import Studio

                page = serve_page.build_page(Studio(run, student, teacher), Path(images))
            address = serve_page.serve_page(page, host, port)
            say(f"{address} until Ctrl-C")
            page.block_thread()


def _warn(where: str, prompts: "Sequence[Prompt]", elsewhere: Path | None) -> None:
    """Say what the model does not know of the captions."""
    from lcm_distill.evaluation.known_captions import unknown_caption

    if told := unknown_caption(where, [prompt.caption for prompt in prompts], elsewhere):
        say(told)


def _finish(made: "Made", as_json: bool) -> None:
    """Generate, showing progress, and say what was written."""
    results: list[dict[str, Any]] = []

    def reports() -> "Iterator[Progress]":
        results.append((yield from made))

    show_progress(reports())
    (result,) = results
    single = [counted(len(result["images"]), "image"), " and "] if result["images"] else []
    show(result, as_json, lambda: say("wrote ", *single, Path(result["image"])))
