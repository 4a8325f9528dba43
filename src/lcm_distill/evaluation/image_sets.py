"""Sets of generated images: image files, committed shard by shard."""
# PyArrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from lcm_distill.api import TextToImage, assemble, assemble_untrained
from lcm_distill.config import Config, EvaluateConfig
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import digest, file_sha256
from lcm_distill.encoders.adaptive_batches import AdaptiveBatches
from lcm_distill.evaluation.generation import batch_generator, generation_dtype
from lcm_distill.evaluation.prompt_files import Prompt, prompts_sha256
from lcm_distill.evaluation.samplings import Sampling, student_sampling
from lcm_distill.evaluation.sharded_work import shard_size, shards, work_through
from lcm_distill.evaluation.table_schemas import IMAGE_COLUMNS
from lcm_distill.metrics.interface import PNG, FileFormat
from lcm_distill.metrics.reference_files import read_image
from lcm_distill.metrics.registry import find_protocol
from lcm_distill.models.checkpoint_identity import checkpoint_sha256, earlier_sha256, untrained_sha256
from lcm_distill.models.networks import teacher_path
from lcm_distill.pipeline.atomic_writes import commit_folder
from lcm_distill.pipeline.executors.interface import Execute, Executor, Outcome
from lcm_distill.pipeline.file_verification import read_verified
from lcm_distill.pipeline.manifest import OK, Manifest, file_columns
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage, WrittenFile
from lcm_distill.pipeline.task import Progress, Task


class ImageSet:
    """The images of one sampling, in a folder whose name has a hash of everything that determines them.

    Args:
        run: the run whose student is sampled from, and whose folder holds the images.
        prompts: their captions and image ids, in order.

    Attributes:
        checkpoint: file of the weights; of an untrained student that of its teacher.
        checkpoint_sha256: identity of the weights; see `models.checkpoint_identity`.
        fingerprint: hash of everything that determines the images.
        remedy: what to do about damaged images and features.

    Raises:
        UserError: the checkpoint is missing or unreadable, or protocols disagree about the file format.
    """

    def __init__(self, config: Config, run: RunFolder, sampling: Sampling, prompts: Sequence[Prompt]) -> None:
        self.config, self.sampling, self.prompts = config, sampling, prompts
        self.student, self.remedy = run.student, f"`lcm evaluate --run {run.root}` makes it again"
        self.checkpoint = run.student if sampling.model == "student" else teacher_path(config.model)
        identify = untrained_sha256 if sampling.model == "untrained" else checkpoint_sha256
        self.checkpoint_sha256 = identify(self.checkpoint)
        self.file_format, self.dtype = (
            image_format(config.evaluate),
            generation_dtype(config.evaluate.dtype, config.device),
        )
        self.fingerprint, self.folder = self._find_place(run.evaluate)
        self.manifest = Manifest(LocalStorage(self.folder), IMAGE_COLUMNS, self.remedy)

    def _find_place(self, parent: Path) -> tuple[str, Path]:
        """Fingerprint and folder; those of an earlier version where it generated these images."""
        fingerprint, folder = self._place(parent, self.checkpoint_sha256)
        if not folder.is_dir() and any(parent.glob(f"{self.sampling.name}-*")):
            earlier = self._place(parent, earlier_sha256(self.checkpoint))
            if earlier[1].is_dir():
                return earlier
        return fingerprint, folder

    def _place(self, parent: Path, checkpoint_sha256: str) -> tuple[str, Path]:
        """Fingerprint and folder of these images, of a checkpoint with this identity."""
        config, sampling = self.config, self.sampling
        fingerprint = digest([
            config.fingerprint("encoders", "model", "diffusion"), checkpoint_sha256,
            [sampling.sampler.name, sampling.sigmas, sampling.guidance],
            [config.generation_seed, config.evaluate.same_noise],
            [self.file_format.format, self.file_format.quality], prompts_sha256(self.prompts),
            *([] if self.dtype == "float32" else [self.dtype]), *self._recorded(),
        ])  # fmt: skip
        return fingerprint, parent / f"{sampling.name}-{fingerprint[:8]}"

    def _recorded(self) -> list[dict[str, float]]:
        """The noise levels in a student's file, where they are not the configuration's."""
        if self.sampling.model == "teacher":
            return []
        diffusion = student_sampling(self.config, self.student).diffusion
        return [] if diffusion == self.config.diffusion else [diffusion.model_dump()]

    @property
    def title(self) -> str:
        """Its name in reports of progress."""
        return self.folder.name

    def tasks(self) -> list[Task]:
        """One task per shard of images."""
        return shards("images", self.fingerprint, len(self.prompts), self.shard_images)

    @cached_property
    def shard_images(self) -> int:
        """Images of a shard, for as long as this object is used."""
        entries = self.manifest.entries().values()
        return shard_size(entries, len(self.prompts), self.config.evaluate.shard_images)

    def opened(self, device: str | None = None) -> Execute:
        """Load the model and return the function that generates shards.

        Args:
            device: instead of the configured one.
        """
        generate = batch_generator(
            self._model(device or self.config.device),
            self.sampling.sampler,
            self.sampling.guidance,
            self.config.generation_seed,
            self.config.evaluate.batch_size,
        )
        return partial(self._execute, generate)

    def images(self, places: Sequence[int]) -> np.ndarray:
        """The images of the prompts at these places, uint8 (N, H, W, 3); their shards must be committed.

        Raises:
            DataError: one is not what was written.
        """
        return np.stack([np.asarray(self.read(row)) for row in self.table().take(list(places)).to_pylist()])

    def read(self, row: Mapping[str, Any]) -> Image.Image:
        """An image in RGB, by its row in the manifest.

        Raises:
            DataError: it is not what was written.
        """
        file = WrittenFile(row["file"], row["file_bytes"], row["file_sha256"])
        return read_image(self.folder / file.name, read_verified(self.manifest.storage, file, self.remedy))

    def table(self) -> pa.Table:  # pyright: ignore[reportUnknownParameterType]
        """The manifest rows of all images, in order.

        Raises:
            DataError: a shard is not committed, or its part of the manifest is damaged.
        """
        return self.manifest.read(self.tasks())

    def _model(self, device: str) -> TextToImage:
        config, role = self.config, self.sampling.model
        if role == "untrained":
            model = assemble_untrained(config.model, config.encoders, student_sampling(config, self.student))
        else:
            model = assemble(config.model, config.encoders, config.diffusion, self.checkpoint, role)
        return model.to(resolve_device(device), getattr(torch, self.dtype))

    def _execute(self, generate: AdaptiveBatches, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Generate and write one shard after the other."""
        for task in tasks:
            prompts = self.prompts[task.inputs["start"] : task.inputs["stop"]]
            images, seconds = self._generate(generate, prompts)
            files = self._write(task, prompts, images)
            shared = {"status": OK, "seconds": seconds / len(prompts)}
            yield task, [
                {"image_id": prompt.image_id, "caption": prompt.caption, **shared, **file_columns(file)}
                for prompt, file in zip(prompts, files, strict=True)
            ], None  # fmt: skip

    def _generate(self, generate: AdaptiveBatches, prompts: Sequence[Prompt]) -> tuple[np.ndarray, float]:
        """Images uint8 (n, H, W, 3), and the seconds they took."""
        ids = [0 if self.config.evaluate.same_noise else prompt.image_id for prompt in prompts]
        began = time.perf_counter()
        images = generate([prompt.caption for prompt in prompts], ids)
        return images.numpy(), time.perf_counter() - began

    def _write(self, task: Task, prompts: Sequence[Prompt], images: np.ndarray) -> list[WrittenFile]:
        """Commit a shard's files together."""
        names = [f"{prompt.image_id}{self.file_format.suffix}" for prompt in prompts]
        options: dict[str, Any] = {"quality": self.file_format.quality} if self.file_format.quality else {}

        def write(folder: Path) -> None:
            for name, image in zip(names, images, strict=True):
                Image.fromarray(image).save(folder / name, self.file_format.format, **options)

        shard = self.folder / task.name
        commit_folder(shard, write)
        return [
            WrittenFile(f"{task.name}/{name}", (shard / name).stat().st_size, file_sha256(shard / name))
            for name in names
        ]


def image_format(settings: EvaluateConfig) -> FileFormat:
    """The file format of the configured protocols; PNG if they accept any.

    Raises:
        UserError: there is no such protocol, or two need different formats.
    """
    found = {name: find_protocol(name, "evaluate.protocols") for name in settings.protocols}
    wanted = {name: protocol.file_format for name, protocol in found.items() if protocol.file_format}
    if len(set(wanted.values())) > 1:
        raise UserError(
            "evaluate.protocols: "
            + " and ".join(f"{name} needs {form.suffix} files" for name, form in wanted.items())
            + ": evaluate under one of them at a time; figures of both stay in the table"
        )
    return next(iter(wanted.values()), PNG)


def generate_images(label: str, image_sets: Sequence[ImageSet], executor: Executor | None = None) -> Iterator[Progress]:
    """Generate what is missing, shard by shard; a worker holds one model at a time."""
    return work_through(label, "images", image_sets, executor)
