"""Commands that write or download weights."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lcm_distill.commands.errors import one_line_errors
from lcm_distill.commands.options import DryRun, ExistingRun, File, Json, Preset, Set, StudentFile, TeacherFile
from lcm_distill.commands.printing import show, show_figures, working, write
from lcm_distill.commands.run_choice import Choice
from lcm_distill.core.errors import UserError

License = Annotated[
    str | None, typer.Option(metavar="NAME", help="Licence in the model card, as the Hugging Face Hub names it.")
]
BaseModel = Annotated[
    str | None, typer.Option(metavar="REPOSITORY", help="The teacher's repository on the Hub, for the model card.")
]


def export(
    run: ExistingRun,
    format: Annotated[
        Literal["safetensors", "sharded", "pt", "diffusers", "onnx"],
        typer.Option(
            help="sharded: a folder of safetensors with an index. pt: a plain dictionary of tensors, as the original "
            "reads it. diffusers: a folder that DiffusionPipeline.from_pretrained opens without this package. onnx: a "
            "folder for ONNX Runtime, of a student with its encoders."
        ),
    ] = "safetensors",
    out: Annotated[
        Path | None, typer.Option(help="File or folder; student-export in the run folder by default.")
    ] = None,
    with_encoders: Annotated[
        bool, typer.Option("--with-encoders", help="VAE and text encoder as well, for --format diffusers.")
    ] = False,
    license: License = None,
    base_model: BaseModel = None,
    student: StudentFile = None,
    teacher: TeacherFile = None,
    json: Json = False,
) -> None:
    """Export the student: the finished one, or that of the newest checkpoint; or a checkpoint from elsewhere."""
    with one_line_errors():
        from lcm_distill.commands.sweep import elsewhere, with_options
        from lcm_distill.publishing.model_card import Terms
        from lcm_distill.stages import export as stage

        if student and teacher:
            raise UserError("--student and --teacher exclude each other: export one, then the other")
        config, folder = Choice(run=run, student=student).load(begins=False)
        write = stage.export_teacher if teacher else stage.export
        config = with_options(config, elsewhere(teacher))
        with working(f"writing {'teacher' if teacher else 'student'}, --format {format}"):
            result = write(config, folder, format, out, with_encoders, Terms(license, base_model))
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
