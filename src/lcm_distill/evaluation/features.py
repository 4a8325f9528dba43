# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""Features of generated images under one protocol, extracted shard by shard, and scores of their captions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from io import BytesIO
from operator import iadd
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lcm_distill.core.hashing import digest
from lcm_distill.evaluation.feature_extractors import ExtractorInfo, open_extractor
from lcm_distill.evaluation.image_preparation import prepare_ahead
from lcm_distill.evaluation.image_sets import ImageSet
from lcm_distill.evaluation.sharded_work import shards, work_through
from lcm_distill.evaluation.table_schemas import SCORE_COLUMNS
from lcm_distill.metrics.protocol import OpenedProtocol
from lcm_distill.metrics.statistics import Statistics
from lcm_distill.pipeline.executors.interface import Execute, Executor, Outcome
from lcm_distill.pipeline.file_verification import read_verified, withdraw_damaged
from lcm_distill.pipeline.manifest import OK, Manifest
from lcm_distill.pipeline.manifest_parts import written_files
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Progress, Task


class FeatureSet:
    """The features of an image set under one protocol, in a folder below the image set's."""

    def __init__(self, image_set: ImageSet, extractor: ExtractorInfo) -> None:
        self.image_set, self.extractor = image_set, extractor
        self.fingerprint = digest([image_set.fingerprint, extractor.protocol, extractor.name, extractor.sha256])
        self.folder = image_set.folder / f"{extractor.protocol}-{self.fingerprint[:8]}"
        self.manifest = Manifest(LocalStorage(self.folder), SCORE_COLUMNS, image_set.remedy)

    @property
    def title(self) -> str:
        """Name in progress reports."""
        return f"{self.image_set.title}, {self.extractor.protocol}"

    def tasks(self) -> list[Task]:
        """One task a shard of the image set."""
        return shards("features", self.fingerprint, len(self.image_set.prompts), self.image_set.shard_images)

    def opened(self, device: str | None = None) -> Execute:
        """Load the extractor, on the configured device or another, and return what executes tasks."""
        config = self.image_set.config
        opened = open_extractor(config.evaluate, self.extractor.protocol, device or config.device)
        return partial(self._execute, opened)

    def table(self) -> pa.Table:
        """Rows of `SCORE_COLUMNS` and file columns for all images, in order."""
        return self.manifest.read(self.tasks())

    def statistics(self) -> Statistics:
        """Statistics of all images; the features of one shard are in memory at a time.

        Raises:
            DataError: features are not what was written.
        """
        return reduce(iadd, map(self._statistics, self.tasks()))

    def _statistics(self, task: Task) -> Statistics:
        rows, protocol = self.manifest.read([task]), self.extractor.traits
        (file,) = written_files(rows)
        features = torch.from_numpy(np.load(BytesIO(read_verified(self.manifest.storage, file, self.image_set.remedy))))
        scores = rows["caption_score"].to_numpy() if protocol.scores_captions else None
        return Statistics.of(features, rows["image_id"].to_pylist(), protocol.sample_size, scores)

    def _execute(self, opened: OpenedProtocol, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Extract features shard by shard, and write each."""
        for task in tasks:
            images = self._images(task).to_pylist()
            features = features_of_images(opened, self.image_set, images)
            scores = opened.caption_scores(features, [image["caption"] for image in images])
            content = BytesIO()
            np.save(content, features.numpy())
            file = LocalStorage(self.folder).put(features_file(task), [content.getbuffer()])
            yield task, [
                {"image_id": image["image_id"], "caption": image["caption"], "status": OK, "caption_score": score,
                 "picture": f"{self.image_set.folder.name}/{image['file']}"}
                for image, score in zip(images, scores, strict=True)
            ], file  # fmt: skip

    def _images(self, task: Task) -> pa.Table:
        """Manifest rows of the images of a task's shard."""
        (images,) = [shard for shard in self.image_set.tasks() if shard.inputs == task.inputs]
        return self.image_set.manifest.read([images])


def features_of_images(opened: OpenedProtocol, image_set: ImageSet, images: Sequence[Mapping[str, Any]]) -> Tensor:
    """Features float32 (n, D) of generated images, which are decoded ahead of the network.

    Args:
        images: their rows in the image set's manifest.

    Raises:
        DataError: a file is not what was written.
    """
    prepared = prepare_ahead(lambda image: opened.protocol.prepare(image_set.read(image)), images)
    return torch.cat(list(opened.features(prepared, image_set.config.evaluate.batch_size)))


def features_file(task: Task) -> str:
    """File of a task's features: float32 (n, D), in NumPy's format."""
    return f"{task.name}.npy"


def withdraw_damaged_files(
    image_sets: Sequence[ImageSet], extractors: Sequence[ExtractorInfo], shown: Sequence[int]
) -> None:
    """Revoke the commits of damaged features, and of damaged images that will be read: both are made again.

    Args:
        shown: places of the images of each set that are read for the grid; others only where features are missing.
    """
    for image_set in image_sets:
        withdraw_damaged(image_set.manifest, [])  # the size of shards is that of those that are committed
        needed = {
            task.inputs["start"]
            for task in image_set.tasks()
            if any(task.inputs["start"] <= place < task.inputs["stop"] for place in shown)
        }
        for extractor in extractors:
            features = FeatureSet(image_set, extractor)
            withdraw_damaged(features.manifest, features.tasks())
            done = features.manifest.done(features.tasks())
            needed |= {task.inputs["start"] for task in features.tasks() if task.name not in done}
        withdraw_damaged(image_set.manifest, [task for task in image_set.tasks() if task.inputs["start"] in needed])


def extract_features(
    label: str, image_sets: Sequence[ImageSet], extractors: Sequence[ExtractorInfo], executor: Executor | None = None
) -> Iterator[Progress]:
    """Extract the features that are missing, shard by shard; a worker holds one network at a time."""
    feature_sets = [FeatureSet(image_set, extractor) for extractor in extractors for image_set in image_sets]
    return work_through(label, "images", feature_sets, executor)
