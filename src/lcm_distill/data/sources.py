"""The data sets that can be read, by the name that configuration gives them."""

from pathlib import Path

from lcm_distill.config import DataConfig
from lcm_distill.data.coco import Coco
from lcm_distill.data.folder import PictureFolder
from lcm_distill.data.journeydb import JourneyDB
from lcm_distill.data.parquet import ParquetPictures
from lcm_distill.data.records import Source
from lcm_distill.data.webdataset import WebDataset

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
            return ParquetPictures(root, captions)
        case "folder":
            return PictureFolder(root, captions)
        case "journeydb" | "shapes":
            return JourneyDB(root, data.archive_numbers(), captions)
