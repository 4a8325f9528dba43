"""What a protocol's network sees in finished drawings: features, a shard at a time, and how well captions are met."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial, reduce
from io import BytesIO
from operator import iadd
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lcm_distill.config import Config
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import digest
from lcm_distill.evaluation.image_sets import ImageSet
from lcm_distill.evaluation.sharded_work import shards, work_through
from lcm_distill.metrics.interface import CaptionExtractor
from lcm_distill.metrics.protocols import Opened, find_protocol, open_protocol
from lcm_distill.metrics.references import read_image
from lcm_distill.metrics.statistics import MeanCosine, Statistics
from lcm_distill.pipeline.executors.work import Execute, Executor, Outcome
from lcm_distill.pipeline.lookahead import map_ahead
from lcm_distill.pipeline.manifest import OK, Manifest
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Progress, Task
from lcm_distill.shapes.captions import caption_hits
from lcm_distill.shapes.network import ShapesExtractor
from lcm_distill.shapes.scenes import ATTRIBUTES, named_in

SCORE_COLUMNS = pa.schema(
    [("image_id", pa.int64()), ("caption", pa.string()), ("picture", pa.string()), ("status", pa.string()),
     ("caption_score", pa.float64())]
)  # fmt: skip
"""One row an image. `image` is its file, below the run's `evaluate`. `caption_score` says how well it meets its
caption: the cosine of a CLIP; 1 or 0 for `shapes`, as shape and colour are seen or not, where it names them; nothing
for other networks."""

IMAGES_ONLY = "`lcm evaluate --images-only` draws without measuring"
"""Ends what is said where something is missing that only measuring needs."""

DECODERS = 2
AHEAD = 64
"""Images that are decoded before the network asks for them."""


@dataclass(frozen=True)
class ExtractorInfo:
    """A protocol's network, known and not loaded.

    Attributes:
        protocol: that it works for. name, sha256, width: as `metrics.interface.Extractor` has them.
    """

    protocol: str
    name: str
    sha256: str
    width: int


def find_extractor(config: Config, protocol: str) -> ExtractorInfo:
    """A protocol's network, once it is sure that it can be loaded.

    Raises:
        UserError: its weights are not there, or not what they should be.
    """
    try:
        found = open_extractor(config, protocol, "cpu").extractor
    except UserError as error:
        raise UserError(f"{error}: set evaluate.weights.{protocol} to the file; {IMAGES_ONLY}") from error
    return ExtractorInfo(protocol, found.name, found.sha256, found.width)


def open_extractor(config: Config, protocol: str, device: str | None = None) -> Opened:
    """A protocol with its network loaded, on the configured device or another."""
    weights = next((path for name, path in config.evaluate.weights.items() if name == protocol), None)
    return _open(protocol, weights, resolve_device(device or config.device))


@lru_cache(maxsize=1)
def _open(protocol: str, weights: Path | None, device: torch.device) -> Opened:
    """The last one is kept: drawing after drawing asks for it."""
    return open_protocol(protocol, weights, device)


class Extraction:
    """The features of a drawing under one protocol, in a folder below the drawing's."""

    def __init__(self, image_set: ImageSet, extractor: ExtractorInfo) -> None:
        self.image_set, self.extractor = image_set, extractor
        self.fingerprint = digest([image_set.fingerprint, extractor.protocol, extractor.name, extractor.sha256])
        self.folder = image_set.folder / f"{extractor.protocol}-{self.fingerprint[:8]}"
        self.manifest = Manifest(LocalStorage(self.folder), SCORE_COLUMNS)

    @property
    def title(self) -> str:
        """As progress calls it."""
        return f"{self.image_set.title}, {self.extractor.protocol}"

    def tasks(self) -> list[Task]:
        """One task a shard of the drawing."""
        count, size = len(self.image_set.prompts), self.image_set.config.evaluate.shard_images
        return shards("features", self.fingerprint, count, size)

    def opened(self, device: str | None = None) -> Execute:
        """Ready to look, on a device other than the configured one if one is given."""
        return partial(self._execute, open_extractor(self.image_set.config, self.extractor.protocol, device))

    def table(self) -> pa.Table:
        """The manifest rows of all images, in order."""
        return self.manifest.read(self.tasks())

    def statistics(self) -> Statistics:
        """Of all images; the features of one shard are in memory at a time."""
        return reduce(iadd, map(self._statistics, self.tasks()))

    def _statistics(self, task: Task) -> Statistics:
        rows, protocol = self.manifest.read([task]), find_protocol(self.extractor.protocol)
        features = torch.from_numpy(np.load(self.folder / features_file(task)))
        found = Statistics.of(features, rows["image_id"].to_pylist(), protocol.sample_size)
        if not protocol.captions:
            return found
        return replace(found, cosines=MeanCosine(len(rows), float(np.sum(rows["caption_score"].to_numpy()))))

    def _execute(self, opened: Opened, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Look at shards one after the other."""
        for task in tasks:
            rows = self._drawn(task).to_pylist()
            paths = [self.image_set.folder / row["file"] for row in rows]
            features = look(opened, paths, self.image_set.config.evaluate.batch_size)
            scores = caption_scores(opened, features, [row["caption"] for row in rows])
            content = BytesIO()
            np.save(content, features.numpy())
            file = LocalStorage(self.folder).put(features_file(task), [content.getbuffer()])
            yield task, [
                {"image_id": row["image_id"], "caption": row["caption"], "status": OK, "caption_score": score,
                 "picture": f"{self.image_set.folder.name}/{row['file']}"}
                for row, score in zip(rows, scores, strict=True)
            ], file  # fmt: skip

    def _drawn(self, task: Task) -> pa.Table:
        """Rows of the images that a task looks at."""
        (images,) = [drawn for drawn in self.image_set.tasks() if drawn.inputs == task.inputs]
        return self.image_set.manifest.read([images])


def look(opened: Opened, paths: Iterable[Path], batch_size: int) -> Tensor:
    """Features float32 (n, D) of image files, which are decoded ahead, beside the network.

    Raises:
        DataError: one cannot be read.
    """
    prepared = map_ahead(lambda path: opened.protocol.prepare(read_image(path)), paths, DECODERS, AHEAD)
    return torch.cat(list(opened.features(prepared, batch_size)))


def features_file(task: Task) -> str:
    """Where a task's features lie: float32 (n, D), in NumPy's format."""
    return f"{task.name}.npy"


def caption_scores(opened: Opened, features: Tensor, captions: Sequence[str]) -> list[float | None]:
    """How well each image meets its caption, as `SCORE_COLUMNS` says; None where the network knows no captions."""
    extractor = opened.extractor
    if isinstance(extractor, ShapesExtractor):
        with torch.inference_mode():
            logits = {name: head(features.to(extractor.device)).cpu() for name, head in extractor.network.heads.items()}
        return caption_hits(logits, [labels_of(caption) for caption in captions]).double().tolist()
    if opened.protocol.captions and isinstance(extractor, CaptionExtractor):
        seen = extractor.captions(captions)
        return torch.nn.functional.cosine_similarity(features.double(), seen.double(), dim=1).tolist()
    return [None] * len(captions)


def labels_of(caption: str) -> dict[str, int]:
    """Index of the value of each attribute that a `shapes` caption names."""
    return {name: ATTRIBUTES[name].index(value) for name, value in named_in(caption).items()}


def extract(
    label: str, image_sets: Sequence[ImageSet], extractors: Sequence[ExtractorInfo], executor: Executor | None = None
) -> Iterator[Progress]:
    """Look at what is not looked at yet, shard by shard; a worker holds one network at a time."""
    extractions = [Extraction(image_set, extractor) for extractor in extractors for image_set in image_sets]
    return work_through(label, "images", extractions, executor)
