"""Images of a data set, cropped as they are for encoding."""

from collections.abc import Iterator, Sequence

import numpy as np

from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.transforms import decode, resize_and_crop
from lcm_distill.formats.images import UnusableImage


def real_images(cache: Cache, paths: Sequence[str]) -> Iterator[np.ndarray]:
    """Images that the cache contains the latents of: each uint8 (H, W, 3), RGB, in the order of the data set.

    Args:
        paths: in the data set.

    Raises:
        DataError: an image that was encoded can no longer be read.
    """
    config, version = cache.config, cache.transform
    for path, content in cache.source.read(paths):
        try:
            yield resize_and_crop(decode(content, config.data.min_size, version), config.resolution, version)
        except UnusableImage as error:
            raise DataError(f"{path}: {error}, though it was encoded before: put it back") from error
