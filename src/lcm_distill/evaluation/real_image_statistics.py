"""Statistics of real images, computed once and kept in the run folder under the identity of their images."""

import logging
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from lcm_distill.config import EvaluateConfig
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import digest
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.real_images import real_images
from lcm_distill.evaluation.feature_extractors import ExtractorInfo, open_extractor
from lcm_distill.evaluation.image_preparation import prepare_files
from lcm_distill.metrics.frechet import Gaussian
from lcm_distill.metrics.protocol import OpenedProtocol
from lcm_distill.metrics.reference_files import folder_identity, image_files, read_statistics, write_statistics
from lcm_distill.metrics.statistics import Statistics
from lcm_distill.pipeline.atomic_writes import commit_file
from lcm_distill.pipeline.task import Progress

log = logging.getLogger(__name__)

Computation = Generator[Progress, None, Statistics]


class ReferenceStatistics:
    """Computes reference statistics with one protocol's extractor, or reads them where they are kept.

    Args:
        cache: of the data set, whose run keeps them below `evaluate/reference`.
        device: where features are extracted, as configured.
    """

    def __init__(self, cache: Cache, settings: EvaluateConfig, device: str, extractor: ExtractorInfo) -> None:
        self.cache, self.settings, self.device, self.extractor = cache, settings, device, extractor

    def of_folder(self, folder: Path) -> Generator[Progress, None, tuple[Statistics, str]]:
        """Statistics of the images below a folder, and their identity, which their names and bytes decide.

        Raises:
            UserError: the folder holds no image, or (DataError) one that cannot be read.
        """
        files, opened = image_files(folder), self._open()
        identity = folder_identity(folder, files, opened)
        title, count = str(folder), len(files)
        statistics = yield from self._kept(identity, opened, lambda: prepare_files(opened, files), count, title)
        return statistics, identity

    def of_data_set(self, sources: Sequence[str], title: str) -> Computation:
        """Statistics of images of the data set, cropped and resized as for encoding.

        Args:
            sources: of the images, as the data set names them.
            title: what they are, for progress reports.
        """
        opened = self._open()

        def prepared() -> Iterable[Tensor]:
            images = real_images(self.cache, sources)
            return (opened.protocol.prepare(Image.fromarray(image)) for image in images)

        identity = digest([
            self.cache.layout.fingerprint, self.cache.config.resolution, list(sources),
            self.extractor.name, self.extractor.sha256,
        ])  # fmt: skip
        return (yield from self._kept(identity, opened, prepared, len(sources), title))

    def _open(self) -> OpenedProtocol:
        return open_extractor(self.settings, self.extractor.protocol, self.device)

    def _kept(
        self, identity: str, opened: OpenedProtocol, prepared: Callable[[], Iterable[Tensor]], count: int, title: str
    ) -> Computation:
        """Statistics of this identity, read from the run folder; computed and written there the first time."""
        kept = self.cache.run.evaluate / "reference" / f"{self.extractor.protocol}-{identity[:16]}.npz"
        known = _read_kept(kept, self.extractor.width, identity)
        if known is not None:
            return known if known.images is not None else _of(known, count)  # of an earlier version
        label = f"reference {opened.protocol.name}, {title}"
        statistics = yield from _accumulate(label, opened, prepared(), count, self.settings.batch_size)
        commit_file(kept, lambda path: write_statistics(path, statistics, identity))
        return read_statistics(kept, self.extractor.width, identity)


def _of(statistics: Statistics, count: int) -> Statistics:
    """Mean and covariance, known to be of so many images."""
    moments = Gaussian(statistics.moments.mean(), statistics.moments.covariance(), count)
    return Statistics(moments, statistics.sample)


def _read_kept(path: Path, width: int, identity: str) -> Statistics | None:
    """Statistics that are kept; None, with a warning if they are damaged, where they have to be computed."""
    if not path.is_file():
        return None
    try:
        return read_statistics(path, width, identity)
    except UserError as error:
        message = f"{path} is damaged and made again ({error})"
        log.warning(message)
        warnings.warn(message, stacklevel=2)
        return None


def _accumulate(
    label: str, opened: OpenedProtocol, prepared: Iterable[Tensor], count: int, batch_size: int
) -> Computation:
    """Statistics of `count` prepared images, batch by batch."""
    total: Statistics | None = None
    done = 0
    yield Progress(label, 0, count, "images")
    for features in opened.features(prepared, batch_size):
        part = opened.statistics(features, range(done, done + len(features)))
        if total is None:
            total = part
        else:
            total += part
        done += len(features)
        yield Progress(label, done, count, "images")
    assert total is not None
    return total
