"""Pictures of held-out captions, drawn one way, and what the feature network sees in them."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from lcm_distill import assets
from lcm_distill.api import LatentConsistencyModel, LatentDiffusion, TextToImage, assemble
from lcm_distill.config import Config, digest
from lcm_distill.data.shapes import ATTRIBUTES, named_in
from lcm_distill.device import resolve_device
from lcm_distill.diffusion.solvers import network_evaluations
from lcm_distill.errors import UserError
from lcm_distill.metrics.captions import caption_hits
from lcm_distill.metrics.shapes_network import ShapesNetwork, load_shapes_network
from lcm_distill.pipeline.atomic import commit_folder, file_sha256
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.executors.work import Execute, Outcome
from lcm_distill.pipeline.manifest import OK, Manifest
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage, WrittenFile
from lcm_distill.pipeline.task import Progress, Task
from lcm_distill.report.tables import way_title
from lcm_distill.stages.cache import cache_fingerprint, how_to_complete, read_catalog, usable_samples
from lcm_distill.stages.networks import teacher_path

IMAGE_COLUMNS = pa.schema(
    [("image_id", pa.int64()), ("caption", pa.string()), ("path", pa.string()), ("status", pa.string()),
     ("caption_hit", pa.bool_()), ("seconds", pa.float64())]
)  # fmt: skip
"""`seconds` is the picture's share of its batch's drawing time, decoding included and measuring not."""

FEATURES_FILE = "features.npy"


@dataclass(frozen=True)
class Sampling:
    """One way of drawing that is measured."""

    model: str
    sampler: str
    steps: int
    guidance: float
    evaluations: int

    @property
    def name(self) -> str:
        """As it is called in folders and tables."""
        return f"{self.model}-{self.sampler}-{self.steps}"

    @property
    def title(self) -> str:
        """As it is called above a picture."""
        return way_title(self.model, self.sampler, self.steps)


def samplings(config: Config, guidance: float | None = None) -> list[Sampling]:
    """Every configured way of drawing, teachers first; at another guidance scale if one is given."""
    return [*teacher_samplings(config, guidance), *student_samplings(config, guidance)]


def teacher_samplings(config: Config, guidance: float | None = None) -> list[Sampling]:
    """Those of the teacher."""
    scale = guidance or config.evaluate.guidance
    return [
        Sampling("teacher", solver, steps, scale, network_evaluations(solver, steps, scale != 1))
        for solver, steps in config.evaluate.teacher
    ]


def student_samplings(config: Config, guidance: float | None = None) -> list[Sampling]:
    """Those of the student."""
    scale = guidance or config.evaluate.guidance
    sampler = "phased" if config.distill.objective == "phased" else "consistency"
    return [Sampling("student", sampler, steps, scale, steps) for steps in config.evaluate.student_steps]


@dataclass(frozen=True)
class Prompt:
    """A held-out picture's caption, and the picture."""

    caption: str
    picture: str


def held_out_prompts(config: Config, run: RunFolder) -> list[Prompt]:
    """As many prompts as pictures are asked for, in order of catalog row, from the start again when they run out."""
    run.require(run.cache / "manifest", how_to_complete(config, run))
    cache = LocalStorage(run.cache)
    held_out = usable_samples(config, cache, "valid")
    if not len(held_out):
        raise UserError("no picture is held out: raise data.valid_fraction")
    held_out = held_out.slice(0, config.evaluate.images)
    captions = read_catalog(cache).captions["caption"].take(held_out["caption_row"])
    prompts = [Prompt(*pair) for pair in zip(captions.to_pylist(), held_out["source"].to_pylist(), strict=True)]
    return [prompts[index % len(prompts)] for index in range(config.evaluate.images)]


class Drawing:
    """The pictures of one sampling, in a folder named by everything that decides them.

    Args:
        run: whose student draws, and below which the pictures go.
    """

    def __init__(self, config: Config, run: RunFolder, way: Sampling, prompts: Sequence[Prompt]) -> None:
        self.config, self.way, self.prompts = config, way, prompts
        self.checkpoint = run.student if way.model == "student" else teacher_path(config)
        sigmas = config.evaluate.student_sigmas.get(way.steps) if way.model == "student" else None
        self.fingerprint = digest([
            config.fingerprint("model", "diffusion"), cache_fingerprint(config), file_sha256(self.checkpoint),
            [way.sampler, way.steps, way.guidance, sigmas, config.evaluate.features], len(prompts),
        ])  # fmt: skip
        self.folder = run.evaluate / f"{way.name}-{self.fingerprint[:8]}"
        self.manifest = Manifest(LocalStorage(self.folder), IMAGE_COLUMNS)

    def tasks(self) -> list[Task]:
        """One task a shard of pictures."""
        size, count = self.config.evaluate.shard_images, len(self.prompts)
        return [
            Task(f"images-{start:06d}", self.fingerprint, {"start": start, "stop": min(start + size, count)})
            for start in range(0, count, size)
        ]

    def opened(self, device: str | None = None) -> Execute:
        """Ready to draw, on a device other than the configured one if one is given."""
        eye = load_shapes_network(assets.FEATURES) if self.config.evaluate.features else None
        return partial(self._execute, self._model(device or self.config.device), eye)

    def features(self) -> np.ndarray:
        """Features of all pictures, (images, D), float32."""
        return np.concatenate([np.load(self.folder / task.name / FEATURES_FILE) for task in self.tasks()])

    def pictures(self, count: int) -> np.ndarray:
        """The first `count` pictures, uint8 (count, H, W, 3)."""
        paths = self.table().slice(0, count)["path"].to_pylist()
        return np.stack([np.asarray(Image.open(self.folder / path)) for path in paths])

    def table(self) -> pa.Table:
        """The manifest rows of all pictures."""
        return self.manifest.read(self.tasks())

    def _model(self, device: str) -> TextToImage:
        config = self.config
        model = assemble(
            config.model.model_dump(), config.encoders, config.diffusion, self.checkpoint, self.way.model,
        ).to(resolve_device(device))  # fmt: skip
        if isinstance(model, LatentDiffusion):
            model.solver = "euler" if self.way.sampler == "euler" else "heun"
        if isinstance(model, LatentConsistencyModel):
            model.sigmas = config.evaluate.student_sigmas
        return model

    def _execute(self, model: TextToImage, eye: ShapesNetwork | None, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Draw shards one after the other, measure each, and write its pictures and features."""
        for task in tasks:
            ids = list(range(task.inputs["start"], task.inputs["stop"]))
            pictures, seconds = self._draw(model, ids)
            features, hits = self._look(eye, pictures, ids)
            file = self._write(task, ids, pictures, features)
            rows = [
                {"image_id": image_id, "caption": self.prompts[image_id].caption,
                 "path": f"{task.name}/{image_id:06d}.png", "status": OK, "caption_hit": hit,
                 "seconds": seconds / len(ids)}
                for image_id, hit in zip(ids, hits, strict=True)
            ]  # fmt: skip
            yield task, rows, file

    def _draw(self, model: TextToImage, ids: Sequence[int]) -> tuple[np.ndarray, float]:
        """Pictures uint8 (n, H, W, 3), and the seconds it took."""
        size, drawn = self.config.evaluate.batch_size, []
        began = time.perf_counter()
        for first in range(0, len(ids), size):
            batch = ids[first : first + size]
            images = model.generate(
                [self.prompts[image_id].caption for image_id in batch],
                self.way.steps,
                self.way.guidance,
                self.config.seed,
                image_ids=batch,
            )
            drawn.append((images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(drawn), time.perf_counter() - began

    def _look(
        self, eye: ShapesNetwork | None, pictures: np.ndarray, ids: Sequence[int]
    ) -> tuple[np.ndarray | None, list[bool | None]]:
        if eye is None:
            return None, [None] * len(ids)
        features, logits = see(eye, pictures)
        hits = caption_hits(logits, [labels_of(self.prompts[image_id].caption) for image_id in ids])
        return features, hits.tolist()

    def _write(
        self, task: Task, ids: Sequence[int], pictures: np.ndarray, features: np.ndarray | None
    ) -> WrittenFile | None:
        def write(folder: Path) -> None:
            for image_id, picture in zip(ids, pictures, strict=True):
                Image.fromarray(picture).save(folder / f"{image_id:06d}.png")
            if features is not None:
                np.save(folder / FEATURES_FILE, features)

        shard = self.folder / task.name
        commit_folder(shard, write)
        if features is None:
            return None
        path = shard / FEATURES_FILE
        return WrittenFile(f"{task.name}/{FEATURES_FILE}", path.stat().st_size, file_sha256(path))


def draw(label: str, drawings: Sequence[Drawing]) -> Iterator[Progress]:
    """Draw what is not drawn yet, shard by shard; one model is held at a time."""
    total, done, resumed = sum(len(drawing.prompts) for drawing in drawings), 0, 0
    yield Progress(label, 0, total, "pictures")
    for drawing in drawings:
        for task, already_done, _ in Serial().run(drawing.tasks(), drawing.manifest, drawing.opened):
            size = task.inputs["stop"] - task.inputs["start"]
            done += size
            resumed += size if already_done else 0
            yield Progress(label, done, total, "pictures", {"drawing": drawing.way.name}, resumed)


def see(eye: ShapesNetwork, pictures: np.ndarray) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    """Features float32 (n, D) and logits by attribute of pictures uint8 (n, H, W, 3)."""
    features, logits = [], []
    with torch.inference_mode():
        for batch in torch.from_numpy(pictures).split(250):
            seen, named = eye(batch.permute(0, 3, 1, 2).float() / 255)
            features.append(seen)
            logits.append(named)
    merged = {name: torch.cat([named[name] for named in logits]) for name in logits[0]}
    return torch.cat(features).numpy(), merged


def labels_of(caption: str) -> dict[str, int]:
    """Index of the value of each attribute that a `shapes` caption names."""
    return {name: ATTRIBUTES[name].index(value) for name, value in named_in(caption).items()}
