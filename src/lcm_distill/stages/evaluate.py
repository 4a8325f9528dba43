"""Stage three: pictures of held-out captions from teacher and student, and the figures that compare them."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from lcm_distill import assets
from lcm_distill.api import LatentConsistencyModel, LatentDiffusion, TextToImage, assemble
from lcm_distill.config import Config, digest
from lcm_distill.data.shapes import ATTRIBUTES, scene_of
from lcm_distill.device import resolve_device
from lcm_distill.diffusion.solvers import network_evaluations
from lcm_distill.errors import UserError
from lcm_distill.metrics.captions import caption_hits
from lcm_distill.metrics.frechet import Moments, frechet_distance
from lcm_distill.metrics.shapes_network import ShapesNetwork, load_shapes_network
from lcm_distill.pipeline.atomic import commit_file, commit_folder, file_sha256
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.executors.work import Execute, Outcome
from lcm_distill.pipeline.manifest import OK, Manifest
from lcm_distill.pipeline.run_folder import RunFolder, source_commit
from lcm_distill.pipeline.storage import LocalStorage, WrittenFile
from lcm_distill.pipeline.task import Progress, Task
from lcm_distill.report.grid import labelled_grid
from lcm_distill.stages.cache import cache_fingerprint, how_to_complete, read_catalog, real_pictures, usable_samples
from lcm_distill.stages.networks import teacher_path

IMAGE_COLUMNS = pa.schema(
    [("image_id", pa.int64()), ("caption", pa.string()), ("path", pa.string()), ("status", pa.string()),
     ("caption_hit", pa.bool_()), ("seconds", pa.float64())]
)  # fmt: skip
"""`seconds` is the picture's share of its batch's drawing time, decoding included and measuring not."""

METRICS = pa.schema(
    [("model", pa.string()), ("sampler", pa.string()), ("steps", pa.int64()), ("guidance", pa.float64()),
     ("metric", pa.string()), ("value", pa.float64()), ("images", pa.int64()),
     ("network_evaluations", pa.int64()), ("seconds_per_image", pa.float64()), ("features", pa.string()),
     ("checkpoint", pa.string()), ("checkpoint_sha256", pa.string()), ("config_fingerprint", pa.string()),
     ("commit", pa.string()), ("time", pa.timestamp("s", tz="UTC"))]
)  # fmt: skip

FRECHET, CAPTIONS = "frechet_distance", "caption_accuracy"
FEATURES_FILE = "features.npy"
GRID_ROWS = 6


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
        solver = f" {self.sampler.capitalize()}" if self.model == "teacher" else ""
        return f"{self.model}, {self.steps}{solver} step{'s' if self.steps > 1 else ''}"


def samplings(config: Config) -> list[Sampling]:
    """Everything that `evaluate` measures, teachers first."""
    settings = config.evaluate
    guided = settings.guidance != 1
    teachers = [
        Sampling("teacher", solver, steps, settings.guidance, network_evaluations(solver, steps, guided))
        for solver, steps in settings.teacher
    ]
    sampler = "phased" if config.distill.objective == "phased" else "consistency"
    students = [Sampling("student", sampler, steps, settings.guidance, steps) for steps in settings.student_steps]
    return teachers + students


def evaluate(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Draw what is not drawn yet, measure it, and write `metrics.parquet`."""
    run.require(run.student, f"run `lcm distill` into {run.root} first")
    prompts = held_out_prompts(config, run)
    ways = samplings(config)
    total, done, resumed = len(ways) * len(prompts), 0, 0
    yield Progress("draw", 0, total, "pictures")
    for way in ways:
        drawing = Drawing(config, run, way, prompts)
        for task, already_done in Serial().run(drawing.tasks(), drawing.manifest, drawing.opened):
            size = task.inputs["stop"] - task.inputs["start"]
            done += size
            resumed += size if already_done else 0
            yield Progress("draw", done, total, "pictures", {"drawing": way.name}, resumed)
    rows = measure(config, run, ways, prompts)
    table = merged_metrics(run.metrics, rows)
    commit_file(run.metrics, lambda path: pq.write_table(table, path))
    grid = side_by_side([Drawing(config, run, way, prompts) for way in ways], prompts[:GRID_ROWS])
    commit_file(run.grid, lambda path: grid.save(path, format="PNG"))


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
    """The pictures of one sampling, in a folder named by everything that decides them."""

    def __init__(self, config: Config, run: RunFolder, way: Sampling, prompts: Sequence[Prompt]) -> None:
        self.config, self.run, self.way, self.prompts = config, run, way, prompts
        self.checkpoint = run.student if way.model == "student" else teacher_path(config)
        sigmas = config.evaluate.student_sigmas.get(way.steps) if way.model == "student" else None
        self.fingerprint = digest([
            config.fingerprint("model", "diffusion"), cache_fingerprint(config), file_sha256(self.checkpoint),
            [way.sampler, way.steps, way.guidance, sigmas, config.evaluate.features], len(prompts),
        ])  # fmt: skip
        self.folder = run.evaluate / f"{way.name}-{self.fingerprint[:8]}"
        self.manifest = Manifest(LocalStorage(self.folder), IMAGE_COLUMNS)
        self._device = config.device

    def tasks(self) -> list[Task]:
        """One task a shard of pictures."""
        size, count = self.config.evaluate.shard_images, len(self.prompts)
        return [
            Task(f"images-{start:06d}", self.fingerprint, {"start": start, "stop": min(start + size, count)})
            for start in range(0, count, size)
        ]

    def opened(self, device: str | None = None) -> Execute:
        """Ready to draw, on a device other than the configured one if one is given."""
        self._device = device or self.config.device
        return self.execute

    def execute(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Draw shards one after the other, measure each, and write its pictures and features."""
        for task in tasks:
            yield task, *self._draw_shard(task)

    def _draw_shard(self, task: Task) -> tuple[list[dict[str, Any]], WrittenFile | None]:
        ids = list(range(task.inputs["start"], task.inputs["stop"]))
        pictures, seconds = self._draw(ids)
        shard = self.folder / task.name
        features, hits = self._look(pictures, ids)

        def write(folder: Path) -> None:
            for image_id, picture in zip(ids, pictures, strict=True):
                Image.fromarray(picture).save(folder / f"{image_id:06d}.png")
            if features is not None:
                np.save(folder / FEATURES_FILE, features)

        commit_folder(shard, write)
        rows = [
            {"image_id": image_id, "caption": self.prompts[image_id].caption,
             "path": f"{task.name}/{image_id:06d}.png", "status": OK, "caption_hit": hit, "seconds": seconds / len(ids)}
            for image_id, hit in zip(ids, hits, strict=True)
        ]  # fmt: skip
        if features is None:
            return rows, None
        path = shard / FEATURES_FILE
        return rows, WrittenFile(f"{task.name}/{FEATURES_FILE}", path.stat().st_size, file_sha256(path))

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

    def _draw(self, ids: Sequence[int]) -> tuple[np.ndarray, float]:
        """Pictures uint8 (n, H, W, 3), and the seconds it took."""
        size, drawn = self.config.evaluate.batch_size, []
        model = self._model
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

    def _look(self, pictures: np.ndarray, ids: Sequence[int]) -> tuple[np.ndarray | None, list[bool | None]]:
        if self.config.evaluate.features is None:
            return None, [None] * len(ids)
        features, logits = see(self._eye, pictures)
        hits = caption_hits(logits, [labels_of(self.prompts[image_id].caption) for image_id in ids])
        return features, hits.tolist()

    @cached_property
    def _eye(self) -> ShapesNetwork:
        return load_shapes_network(assets.FEATURES)

    @cached_property
    def _model(self) -> TextToImage:
        config = self.config
        model = assemble(
            config.model.model_dump(), config.encoders, config.diffusion, self.checkpoint, self.way.model,
        ).to(resolve_device(self._device))  # fmt: skip
        if isinstance(model, LatentDiffusion):
            model.solver = "euler" if self.way.sampler == "euler" else "heun"
        if isinstance(model, LatentConsistencyModel):
            model.sigmas = config.evaluate.student_sigmas
        return model


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
    """Index of each attribute's value in a `shapes` caption."""
    return dict(zip(ATTRIBUTES, scene_of(caption).labels(), strict=True))


def measure(
    config: Config, run: RunFolder, ways: Sequence[Sampling], prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """Rows of `metrics.parquet` for finished drawings; none without a feature network."""
    if config.evaluate.features is None:
        return []
    eye = load_shapes_network(assets.FEATURES)
    reference = real_moments(config, run, eye, list(dict.fromkeys(prompt.picture for prompt in prompts)))
    shared = {
        "features": f"{config.evaluate.features}:{file_sha256(assets.FEATURES)[:12]}",
        "config_fingerprint": config.fingerprint(
            "data", "encoders", "cache", "model", "diffusion", "distill", "evaluate"
        ),
        "commit": source_commit(),
        "time": datetime.now(UTC),
    }
    rows = []
    for way in ways:
        drawing = Drawing(config, run, way, prompts)
        table = drawing.table()
        hits, seconds = table["caption_hit"].to_numpy(), table["seconds"].to_numpy()
        values = {
            FRECHET: frechet_distance(Moments.of(torch.from_numpy(drawing.features())), reference),
            CAPTIONS: float(np.mean(hits.astype(float))),
        }
        rows += [
            {"model": way.model, "sampler": way.sampler, "steps": way.steps, "guidance": way.guidance,
             "metric": metric, "value": value, "images": len(hits), "network_evaluations": way.evaluations,
             "seconds_per_image": float(seconds.mean()), "checkpoint": str(drawing.checkpoint),
             "checkpoint_sha256": file_sha256(drawing.checkpoint), **shared}
            for metric, value in values.items()
        ]  # fmt: skip
    usable = usable_samples(config, LocalStorage(run.cache), "train")
    floor_pictures = usable["source"].slice(0, config.evaluate.images).to_pylist()
    floor = frechet_distance(real_moments(config, run, eye, floor_pictures), reference)
    rows.append(
        {"model": "real", "sampler": "none", "metric": FRECHET, "value": floor, "images": len(floor_pictures), **shared}
    )
    return rows


def real_moments(config: Config, run: RunFolder, eye: ShapesNetwork, sources: Sequence[str]) -> Moments:
    """Moments of the features of real pictures, prepared as for encoding."""
    return Moments.of(torch.from_numpy(see(eye, real_pictures(config, run, sources))[0]))


def side_by_side(drawings: Sequence["Drawing"], prompts: Sequence[Prompt]) -> Image.Image:
    """The first pictures of every drawing, one column each."""
    columns = [(drawing.way.title, drawing.pictures(len(prompts))) for drawing in drawings]
    return labelled_grid(columns, [prompt.caption for prompt in prompts], cell=max(128, columns[0][1].shape[1]))


def merged_metrics(path: Path, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows, and those already at `path` that they do not replace."""
    key = ("model", "sampler", "steps", "guidance", "metric", "images", "checkpoint_sha256")
    kept = pq.read_table(path).to_pylist() if path.is_file() else []
    merged = {tuple(row.get(name) for name in key): row for row in [*kept, *rows]}
    return pa.Table.from_pylist(list(merged.values()), schema=METRICS)
