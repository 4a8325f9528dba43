"""`lcm export`: a student or teacher as safetensors, as the original's `.pt`, or as a folder for diffusers."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lcm_distill.assets import TEACHERS
from lcm_distill.config import Config, EncodersConfig
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.teacher_fit import student_remedy, trained_student
from lcm_distill.evaluation.image_grid import shown_checkpoints
from lcm_distill.evaluation.metric_rows import read_metrics
from lcm_distill.evaluation.prompts import held_out_prompts
from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.models.checkpoint import fill, pickled, read_tensors, serialise
from lcm_distill.models.checkpoint_identity import checkpoint_sha256, earlier_sha256
from lcm_distill.models.networks import build_network, read_teacher, teacher_path
from lcm_distill.models.student_description import StudentDescription, recorded_description
from lcm_distill.models.weight_shards import INDEX_FILE, write_shards
from lcm_distill.pipeline.atomic_writes import (
    commit_bytes,
    commit_file,
    commit_folder,
    remove_orphans_of,
    require_file_or_nothing,
    require_writable,
)
from lcm_distill.pipeline.run_folder import RunFolder, recorded_environment, require_foreign
from lcm_distill.publishing.export_folder import require_onnx, require_place
from lcm_distill.publishing.model_card import UNDECIDED, Card, Terms, card_text
from lcm_distill.publishing.published_model import Published
from lcm_distill.publishing.usage import by_kind_of_pipeline, caption_for, with_onnx, with_the_package
from lcm_distill.training.checkpoints import Checkpoints
from lcm_distill.training.student import as_plain, fingerprint
from lcm_distill.training.student_networks import student_from_teacher
from lcm_distill.training.teacher import describe_teacher

Form = Literal["safetensors", "sharded", "pt", "diffusers", "onnx"]
"""`sharded`: a folder of safetensors files with an index. `pt`: a table of tensors. `diffusers`: a folder
that `DiffusionPipeline.from_pretrained` opens. `onnx`: a folder for ONNX Runtime."""
FOLDERS = ("sharded", "diffusers", "onnx")
WITH_ENCODERS = ("diffusers", "onnx")


def export(
    config: Config,
    run: RunFolder,
    form: Form,
    out: Path | None = None,
    with_encoders: bool = False,
    terms: Terms = UNDECIDED,
) -> dict[str, Any]:
    """Write a run's student: the finished one, or the one that its newest checkpoint would publish.

    Args:
        out: `student-export.*` in the run folder if None; without a suffix for a folder.
        with_encoders: write VAE and text encoder as well, for `diffusers`; `onnx` always has them.
        terms: for the model card.

    Returns:
        The file or folder, the card, the steps it was trained for, the configured steps and the number of tensors.

    All formats have the published key layout. Files of weights also record everything that sampling needs, so that
    `api.open_model` opens them alone. A student from elsewhere (`RunFolder.student`) is written in the same way, with
    what it records itself and the sizes and encoders of the run.

    Raises:
        UserError: nothing is trained yet, the checkpoints belong to other settings, or encoders are asked for that
            cannot be loaded or have no place in the format.
        DataError: every checkpoint is damaged.
    """
    out = out or _default(run, "student", form)
    _require_place(form, out)
    step, weights = _weights(config, run)
    trained = {} if run.has_foreign_student else {"trained_steps": step, "of_steps": config.distill.steps}
    model = _student(config.encoders, config.evaluate.guidance[0], weights, _description(config, run))
    card = _card(config, run, model, terms, bool(trained), _training(config, step) if trained else {})
    return {**write(form, out, model, card, with_encoders), **trained}


def export_teacher(
    config: Config,
    run: RunFolder,
    form: Form,
    out: Path | None = None,
    with_encoders: bool = False,
    terms: Terms = UNDECIDED,
) -> dict[str, Any]:
    """Write the teacher, `model.teacher`, in the same formats.

    Args:
        out: `teacher-export.*` in the run folder if None. with_encoders, terms: as `export` takes them.

    Returns:
        The file or folder, the card and the number of tensors.

    Raises:
        UserError: the checkpoint is missing or unreadable, or as `export`.
    """
    out = out or _default(run, "teacher", form)
    _require_place(form, out)
    model = Published(
        weights=read_teacher(config.model),
        description=describe_teacher(config.model),
        sizes=config.model,
        encoders=config.encoders,
        diffusion=config.diffusion,
        sampling=None,
        guidance=config.evaluate.guidance[0],
    )
    trained_here = teacher_path(config.model).resolve() == run.teacher.resolve()
    card = _card(config, run, model, terms, trained_here, {})
    return write(form, out, model, card, with_encoders)


def write(form: Form, out: Path, model: Published, card: Card, with_encoders: bool = False) -> dict[str, Any]:
    """Write a model at `out`, and its card: in a folder `README.md`, beside a file `NAME-card.md`.

    Returns:
        The file or folder to open it by, the card and the number of tensors.

    Raises:
        UserError: encoders are asked for that cannot be loaded or have no place in the format, or the format needs
            what is not installed.
        OSError: it cannot be written.
    """
    if with_encoders and form not in WITH_ENCODERS:
        raise UserError(f"--with-encoders: --format {form} holds the transformer alone; give --format diffusers")
    path = out.with_name(f"{out.stem}-card.md")
    image = path.with_suffix(".png")
    remove_orphans_of(*([out.resolve()] if form in FOLDERS else [out, path, image]))
    opened = out / INDEX_FILE if form == "sharded" else out
    if form == "diffusers":
        library, usage = "diffusers", by_kind_of_pipeline(model, card.caption, out.name, with_encoders)
    elif form == "onnx":
        library, usage = "onnxruntime", {"": with_onnx(card.caption, out.name)}
    else:
        where = str(opened.relative_to(out.parent))
        library, usage = "lcm-distill", {"": with_the_package(model, card.caption, where)}
    text = partial(card_text, model, card, out.stem, library, usage)
    if form in FOLDERS:
        commit_folder(out.resolve(), lambda folder: _fill(form, folder, model, card, text, with_encoders))
        return {"file": str(opened), "card": str(out / "README.md"), "tensors": len(model.weights)}
    if form == "pt":
        commit_file(out, partial(_save, model))
    else:
        commit_bytes(out, serialise(model.weights, model.description))
    if card.grid:
        commit_bytes(image, card.grid.read_bytes())
    commit_bytes(path, text(image.name if card.grid else None).encode())
    return {"file": str(out), "card": str(path), "tensors": len(model.weights)}


def _fill(
    form: Form, folder: Path, model: Published, card: Card, text: Callable[[str | None], str], with_encoders: bool
) -> None:
    if form == "sharded":
        write_shards(folder, model.weights, model.description)
    elif form == "onnx":
        from lcm_distill.publishing.onnx_folder import write_onnx  # which imports diffusers, as below

        write_onnx(folder, model)
    else:
        from lcm_distill.publishing.diffusers_folder import write_diffusers  # diffusers is slow to import

        write_diffusers(folder, model, with_encoders)
    if card.grid:
        (folder / "grid.png").write_bytes(card.grid.read_bytes())
    (folder / "README.md").write_text(text("grid.png" if card.grid else None))


def _card(
    config: Config, run: RunFolder, model: Published, terms: Terms, trained_here: bool, training: Mapping[str, object]
) -> Card:
    """A card; of a model from elsewhere it says nothing that is known of the run's own alone."""
    shown, source, teacher = shown_checkpoints(run.grid), config.data.source, config.model.teacher
    ships = model.role == "teacher" and teacher in TEACHERS
    return Card(
        rows=_rows(config, run),
        styles=FIGURE_STYLES,
        caption=(_own_caption(config, run) if trained_here else None) or caption_for(model.encoders.text),
        # A grid of an earlier version does not say whose images it shows.
        grid=run.grid if (trained_here if shown is None else model.sha256 in shown) else None,
        training=training,
        parts={
            "data": source if trained_here else "shapes" if ships else None,
            "VAE": model.encoders.vae,
            "text encoder": model.encoders.text,
            "teacher": Path(teacher).name if trained_here or model.role == "teacher" else None,  # no local folders
        },
        environment=recorded_environment(run) if trained_here else {},
        terms=terms,
    )


def _own_caption(config: Config, run: RunFolder) -> str | None:
    """The shortest caption of the run's evaluation; None where its cache is gone or holds nothing out."""
    try:
        prompts = held_out_prompts(Cache.local(config, run), config.evaluate.images)
    except UserError:
        return None
    return min((prompt.caption for prompt in prompts), key=len)


def _rows(config: Config, run: RunFolder) -> list[dict[str, Any]]:
    """The run's figures, but those of other teachers."""
    rows = (read_metrics(run.metrics) if run.metrics.is_file() else None) or []
    path = teacher_path(config.model)
    if not any(row["model"] == "teacher" for row in rows) or not path.is_file():
        return [row for row in rows if row["model"] != "teacher" or row["checkpoint"] == str(path)]
    own = {checkpoint_sha256(path), earlier_sha256(path)}
    return [row for row in rows if row["model"] != "teacher" or row["checkpoint_sha256"] in own]


def _training(config: Config, step: int) -> dict[str, object]:
    settings = config.distill
    return {
        "objective": settings.objective,
        "steps": f"{step:,} of {settings.steps:,}",
        "batch size": settings.batch_size,
        "learning rate": f"{settings.learning_rate:g}",
        "guidance range": " to ".join(f"{scale:g}" for scale in settings.guidance_range),
        "distribution matching": f"weight {settings.matching.weight:g}",
        "precision": config.engine.precision,
        "seed": settings.seed if settings.seed is not None else config.seed,
        "configuration, fingerprint": config.fingerprint("model", "diffusion", "engine", "distill"),
    }


def _student(
    encoders: EncodersConfig, guidance: float, weights: Mapping[str, Tensor], description: StudentDescription
) -> Published:
    recorded = description.encoders.model_dump() if description.encoders else {}
    return Published(
        weights=weights,
        description=description.to_json(),
        sizes=description.model,
        encoders=encoders.model_copy(update=recorded),
        diffusion=description.diffusion,
        sampling=description,
        guidance=guidance,
    )


def _require_place(form: Form, out: Path) -> None:
    """Refuse, before weights are read, what the result must not replace, and a format whose libraries are not here."""
    if form == "onnx":
        require_onnx()
    if form in FOLDERS:
        require_place(out)
        require_writable(out.resolve())
    else:
        require_foreign(out)
        require_file_or_nothing(out)
        require_writable(out)


def _default(run: RunFolder, role: str, form: Form) -> Path:
    return run.root / (f"{role}-export" if form in FOLDERS else f"{role}-export.{form}")


def _save(model: Published, path: Path) -> None:
    # Given a path, torch.save would write the temporary name into the file.
    with path.open("wb") as file:
        torch.save(pickled(model.weights, model.description), file)


def _description(config: Config, run: RunFolder) -> StudentDescription:
    if run.student.is_file():
        return recorded_description(config, run.student, trained_here=not run.has_foreign_student)
    return StudentDescription.of(config)


def _weights(config: Config, run: RunFolder) -> tuple[int, dict[str, Tensor]]:
    if run.has_foreign_student:
        weights = read_tensors(trained_student(config, run))
        fill(build_network(config.model, guidance_embedding=True, empty=True), weights, run.student)  # of these sizes
        return 0, weights
    if run.student.is_file():
        return config.distill.steps, read_tensors(run.student)
    run.require(run.distill / "checkpoints", student_remedy(config, run))
    weights = student_from_teacher(config.model, config.distill).state_dict()
    name = "average" if config.distill.publish == "average" else "model"
    checkpoints = Checkpoints(run.distill / "checkpoints", fingerprint(config))
    step = checkpoints.load_latest(lambda: {f"{name}.{key}": tensor for key, tensor in weights.items()})
    return step or 0, dict(as_plain(config.distill, weights))
