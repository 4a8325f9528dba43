"""`lcm schedule`: search the sigmas of a student's sampler, and store them in its checkpoint."""
# PyArrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcm_distill.config import Config, ScheduleConfig
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import digest
from lcm_distill.data.teacher_fit import teacher_remedy, trained_student
from lcm_distill.diffusion.sigma_search import Sigmas, Trial, search_sigmas
from lcm_distill.evaluation.generation import generation_dtype
from lcm_distill.evaluation.requirements import require_student
from lcm_distill.evaluation.sample_distance import StudentSamples
from lcm_distill.evaluation.samplings import student_sampling
from lcm_distill.models.checkpoint import redescribe
from lcm_distill.models.checkpoint_identity import checkpoint_sha256
from lcm_distill.models.networks import require_teacher
from lcm_distill.models.student_description import recorded_description, require_sigmas
from lcm_distill.pipeline.atomic_writes import commit_bytes
from lcm_distill.pipeline.file_verification import withdraw_damaged
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Progress, Task
from lcm_distill.stages.stage import Check, Stage, needs_cache
from lcm_distill.training.student import fingerprint

TRIALS = pa.schema(
    [("steps", pa.int64()), ("sigmas", pa.list_(pa.float64())), ("distance", pa.float64()), ("guidance", pa.float64()),
     ("samples", pa.int64())]
)  # fmt: skip
"""One row per trial."""


def schedule(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Search the sigmas of every number of steps in `schedule.steps`, and store them; see `store_sigmas`.

    Those in `schedule.sigmas` are stored as they are, and their distance is the only trial.

    Raises:
        UserError: there is no student yet, or it was trained in phases, whose edges are its sigmas.
    """
    _require_student(config, run)
    manifest = Manifest(LocalStorage(run.schedule), TRIALS, f"`lcm schedule --run {run.root}` makes it again")
    withdraw_damaged(manifest, [])
    tasks = {steps: Task(f"steps-{steps:02d}", _identity(config, run, steps)) for steps in config.schedule.steps}
    done = manifest.done(list(tasks.values()))
    pending = {steps: task for steps, task in tasks.items() if task.name not in done}
    yield Progress("schedule", len(done), len(tasks), "schedules", resumed=len(done))
    if pending:
        samples = StudentSamples(config, run)
        row = partial(_row, config.schedule.samples, config.evaluate.guidance[0])
        for finished, (steps, task) in enumerate(pending.items(), len(done)):
            trials: list[Trial] = []
            for trial in _trials(samples, steps, config.schedule.sigmas.get(steps)):
                trials.append(trial)
                counts = {"steps": steps, "trials": len(trials), "distance": min(trial.distance for trial in trials)}
                yield Progress("schedule", finished, len(tasks), "schedules", counts, len(done))
            manifest.drop([task.name])
            manifest.commit(task, [row(steps, trial) for trial in trials], None)
            yield Progress("schedule", finished + 1, len(tasks), "schedules", resumed=len(done))
    store_sigmas(config, run, best_sigmas(manifest, list(tasks.values())))


def _trials(samples: StudentSamples, steps: int, given: Sequence[float] | None) -> Iterator[Trial]:
    """Trials of a number of steps: a search, or the sigmas that are given."""
    if given is None:
        return search_sigmas(samples.distance, steps, samples.diffusion.sigma_min, samples.diffusion.sigma_max)
    return iter([Trial(tuple(given), samples.distance(tuple(given)))])


def best_sigmas(manifest: Manifest, tasks: Sequence[Task]) -> dict[int, Sigmas]:
    """The sigmas of least distance by number of steps, among the trials of these tasks, which are committed."""
    best: dict[int, Sigmas] = {}
    for row in sorted(manifest.read(tasks).to_pylist(), key=lambda row: (row["steps"], row["distance"])):
        best.setdefault(row["steps"], tuple(row["sigmas"]))
    return best


def store_sigmas(config: Config, run: RunFolder, found: dict[int, Sigmas]) -> None:
    """Store sigmas by number of steps in the run's student; those of other numbers of steps stay.

    A file from elsewhere is left as it is: its weights with the sigmas are written into the run folder.
    """
    student = recorded_description(config, run.student, trained_here=not run.has_foreign_student)
    if run.has_foreign_student or any(student.sigmas.get(steps) != sigmas for steps, sigmas in found.items()):
        student = student.model_copy(update={"sigmas": {**student.sigmas, **found}})
        commit_bytes(scheduled_student(run), redescribe(run.student, student.to_json()))


def scheduled_student(run: RunFolder) -> Path:
    """The file that sigmas are stored in."""
    return run.root / f"{run.student.stem}-scheduled.safetensors" if run.has_foreign_student else run.student


def _require_student(config: Config, run: RunFolder) -> None:
    if run.has_foreign_student:
        trained_student(config, run)
    known = student_sampling(config, run.student)
    require_sigmas(config.schedule.sigmas, known.diffusion, "schedule.sigmas")
    if known.phases or (config.phases and not run.has_foreign_student):
        raise UserError(
            f"{run.student} is a phased student's (distill.objective): the edges of its phases are its sigmas, there "
            "is nothing to search"
        )
    require_student(config, run)


def _identity(config: Config, run: RunFolder, steps: int) -> str:
    """Hash of everything that determines a search."""
    dtype = generation_dtype(config.evaluate.dtype, config.device)
    known = student_sampling(config, run.student)
    return digest([
        fingerprint(config), config.schedule.samples, config.evaluate.guidance[0], steps,
        *([] if dtype == "float32" else [dtype]),
        *([given] if (given := config.schedule.sigmas.get(steps)) else []),
        *([checkpoint_sha256(run.student)] if run.has_foreign_student else []),
        *([known.diffusion.model_dump()] if known.diffusion != config.diffusion else []),
        *(["fresh noise", known.fresh_noise] if known.fresh_noise != config.distill.fresh_noise else []),
    ])  # fmt: skip


def _row(samples: int, guidance: float, steps: int, trial: Trial) -> dict[str, Any]:
    return {
        "steps": steps, "sigmas": list(trial.sigmas), "distance": trial.distance, "guidance": guidance,
        "samples": samples,
    }  # fmt: skip


def plan_schedule(settings: ScheduleConfig, guidance: float) -> dict[str, Any]:
    """Figures of a search, at a guidance scale."""
    return {"numbers_of_steps": settings.steps, "samples_per_trial": settings.samples, "guidance": guidance}


def checks(config: Config, run: RunFolder, before: Collection[str]) -> list[Check]:
    """What a search needs: a student of the whole trajectory, a cache, and the teacher."""
    return [
        partial(_require_student, config, run),
        *needs_cache(config, run, before),
        partial(require_teacher, config.model, teacher_remedy(config, run)),
    ]


STAGE = Stage(
    "schedule", schedule, lambda config, run: plan_schedule(config.schedule, config.evaluate.guidance[0]), checks,
    "first",
    result="SELECT steps, arg_min(sigmas, distance) AS sigmas, min(distance) AS distance, count(*) AS trials "
    "FROM schedule GROUP BY steps ORDER BY steps",
    writes_of=["distill"],
)  # fmt: skip
