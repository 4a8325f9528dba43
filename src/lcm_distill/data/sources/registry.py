"""The data sets that can be read. A new one is added as one entry of `SOURCES`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lcm_distill.config import DataConfig
from lcm_distill.core.errors import UserError
from lcm_distill.data.sources.captions import CAPTION_SUFFIXES, Captions
from lcm_distill.data.sources.coco import Coco
from lcm_distill.data.sources.folder import FILE_NAME, ImageFolder
from lcm_distill.data.sources.interface import Source
from lcm_distill.data.sources.journeydb import JourneyDB
from lcm_distill.data.sources.parquet import ParquetImages
from lcm_distill.data.sources.webdataset import WebDataset


@dataclass(frozen=True)
class Chosen:
    """What a configuration chooses of a data set.

    Attributes:
        captions: fields that captions come from, and the files that they are in.
        archives: numbers of the archives that are read; None reads all.
        image_column: field or column of the images; None is the source's own.
    """

    captions: Captions
    archives: frozenset[int] | None = None
    image_column: str | None = None


@dataclass(frozen=True)
class SourceType:
    """A kind of data set.

    Attributes:
        open: opens the one at a root, of which the configuration chooses.
        captions: fields that captions come from by default, with their shares; empty if `data.captions` cannot choose.
        numbered_archives: whether `data.archives` can choose some of its archives.
        image_columns: whether `data.image_column` can choose where its images are.
        caption_files: whether `data.caption_suffixes` can choose its caption files.
        generated: whether its images are generated, by default in the run folder, rather than downloaded.
    """

    open: Callable[[Path, Chosen], Source]
    captions: Mapping[str, float]
    numbered_archives: bool = False
    image_columns: bool = False
    caption_files: bool = False
    generated: bool = False

    @property
    def needs_root(self) -> bool:
        """Whether `data.root` must be set."""
        return not self.generated


SHAPES_CAPTIONS = {"prompt": 0.3, "Task2.Caption": 0.7}
"""Where captions say all, an image is nearly its caption's mean; brief ones leave much open, and have many images."""

SOURCES: dict[str, SourceType] = {
    "shapes": SourceType(lambda root, chosen: JourneyDB(root, None, chosen.captions), SHAPES_CAPTIONS, generated=True),
    "journeydb": SourceType(
        lambda root, chosen: JourneyDB(root, chosen.archives, chosen.captions), {"prompt": 1.0}, numbered_archives=True
    ),
    "coco": SourceType(lambda root, chosen: Coco(root, chosen.captions.every), {}),
    "folder": SourceType(
        lambda root, chosen: ImageFolder(root, chosen.captions, chosen.image_column or FILE_NAME), {"text": 1.0},
        image_columns=True, caption_files=True,
    ),
    "webdataset": SourceType(lambda root, chosen: WebDataset(root, chosen.captions), {"txt": 1.0}, caption_files=True),
    "parquet": SourceType(
        lambda root, chosen: ParquetImages(root, chosen.captions, chosen.image_column), {"caption": 1.0},
        image_columns=True,
    ),
}  # fmt: skip
"""Kinds of data sets, by their names in the configuration."""


def source_type(data: DataConfig) -> SourceType:
    """The kind of the configured data set.

    Raises:
        UserError: there is no such kind, or it does not have what the configuration chooses from.
    """
    found = SOURCES.get(data.source)
    if found is None:
        raise UserError(f"data.source = {data.source!r} is unknown: write one of {', '.join(SOURCES)}")
    if data.archives is not None and not found.numbered_archives:
        raise UserError(f"data.archives = {data.archives!r}: source {data.source} has no numbered archives: unset it")
    if data.captions is not None and not found.captions:
        raise UserError(
            f"data.captions = {data.captions}: source {data.source} has captions of its own: unset it, and leave "
            "--caption-column out"
        )
    if data.image_column is not None and not found.image_columns:
        raise UserError(
            f"data.image_column = {data.image_column!r}: source {data.source} has no columns: unset it, and leave "
            "--image-column out"
        )
    if data.caption_suffixes is not None and not found.caption_files:
        raise UserError(
            f"data.caption_suffixes = {data.caption_suffixes}: source {data.source} has no caption files: unset it"
        )
    return found


def source_root(data: DataConfig, generated: Path) -> Path:
    """The folder of the configured data set.

    Args:
        generated: folder of generated images, where `data.root` is unset.

    Raises:
        UserError: a data set that must be downloaded has no `data.root`; or as `source_type`.
    """
    found = source_type(data)
    if data.root is not None:
        return data.root
    if found.needs_root:
        raise UserError(f"data.root is missing: set it to the folder of your data set (data.source = {data.source!r})")
    return generated


def open_source(data: DataConfig, generated: Path) -> Source:
    """The configured data set.

    Args:
        generated: folder of generated images, where `data.root` is unset.

    Raises:
        UserError: `data.root` is no folder; or as `source_type` and `source_root`.
    """
    found, root = source_type(data), source_root(data, generated)
    if not found.generated and not root.is_dir():
        wrong = f"{root.absolute()} is a file" if root.exists() else f"there is no folder {root.absolute()}"
        raise UserError(f"data.root = {str(root)!r}: {wrong}: set it to your data set's folder")
    shares = data.captions or found.captions
    captions = Captions(shares, data.captions_per_image == "all", tuple(data.caption_suffixes or CAPTION_SUFFIXES))
    return found.open(root, Chosen(captions, data.archive_numbers(), data.image_column))
