"""The data sets that can be read, by the name that configuration gives them."""

from pathlib import Path

from lcm_distill.config import DataConfig
from lcm_distill.data.sources.coco import Coco
from lcm_distill.data.sources.folder import ImageFolder
from lcm_distill.data.sources.interface import Source
from lcm_distill.data.sources.journeydb import JourneyDB
from lcm_distill.data.sources.parquet import ParquetImages
from lcm_distill.data.sources.webdataset import WebDataset

CAPTION_SHARES = {
    "journeydb": {"prompt": 1.0},
    "shapes": {"prompt": 1.0},
    "webdataset": {"txt": 1.0},
    "parquet": {"caption": 1.0},
    "folder": {"text": 1.0},
}
"""Where captions come from when configuration does not say."""


def open_source(data: DataConfig, root: Path) -> Source:
    """The data set at `root`."""
    if data.source == "coco":
        return Coco(root)
    captions = data.captions or CAPTION_SHARES[data.source]
    match data.source:
        case "webdataset":
            return WebDataset(root, captions)
        case "parquet":
            return ParquetImages(root, captions)
        case "folder":
            return ImageFolder(root, captions)
        case "journeydb" | "shapes":
            return JourneyDB(root, data.archive_numbers(), captions)
