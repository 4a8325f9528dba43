"""What drawings are compared with: statistics from a file, of a folder, or of the captions' own images."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import digest, file_sha256
from lcm_distill.data.cache.cache import cache_fingerprint, real_images, usable_samples
from lcm_distill.evaluation.features import (
    AHEAD,
    DECODERS,
    IMAGES_ONLY,
    ExtractorInfo,
    find_extractor,
    open_extractor,
)
from lcm_distill.evaluation.image_sets import prompts_sha256
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.evaluation.prompts import HELD_OUT
from lcm_distill.metrics.frechet import frechet_distance
from lcm_distill.metrics.protocols import Opened, find_protocol
from lcm_distill.metrics.references import (
    folder_identity,
    image_files,
    read_image,
    read_statistics,
    write_statistics,
)
from lcm_distill.metrics.statistics import Statistics
from lcm_distill.pipeline.atomic import commit_file
from lcm_distill.pipeline.lookahead import map_ahead
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Progress
from lcm_distill.shapes.scenes import named_in

Finding = Generator[Progress, None, Statistics]


@dataclass(frozen=True)
class Reference:
    """What drawings are compared with under one protocol.

    Attributes:
        extractor: the protocol's network. prompts: which captions, with 12 digits of their hash.
        statistics: of real images; None where the protocol compares with none.
        source: what they were computed from, with 12 digits of its hash.
        floor: Fréchet distance of images of other captions to the real images of the captions drawn; None where it
            is not known. floor_images: how many those are.
    """

    extractor: ExtractorInfo
    prompts: str
    statistics: Statistics | None = None
    source: str | None = None
    floor: float | None = None
    floor_images: int | None = None


def find_extractors(config: Config) -> list[ExtractorInfo]:
    """The networks of the configured protocols, once it is sure that all there must be for measuring is there.

    Raises:
        UserError: there is no protocol; weights or reference are missing; or there are too few images.
    """
    if not config.evaluate.protocols:
        raise UserError("evaluate.protocols is empty: without a protocol there is nothing to measure")
    for protocol in config.evaluate.protocols:
        require_reference(config, protocol)
    extractors = [find_extractor(config, protocol) for protocol in config.evaluate.protocols]
    for extractor in extractors:
        require_enough(config, extractor)
    return extractors


def find_references(
    config: Config, run: RunFolder, prompts: Sequence[Prompt], extractors: Sequence[ExtractorInfo]
) -> Generator[Progress, None, list[Reference]]:
    """What drawings of these prompts are compared with, a reference a protocol.

    Raises:
        UserError: a reference is not what it should be, or `shapes` is to look at captions that are not its own.
    """
    references = []
    for extractor in extractors:
        if extractor.protocol == "shapes":
            require_shapes(prompts)
        references.append((yield from _find_reference(config, run, prompts, extractor)))
    return references


def require_reference(config: Config, protocol: str) -> None:
    """Hold the configuration to what a protocol compares with.

    Raises:
        UserError: no reference is named, or what is named is not there.
    """
    if not compares(protocol):
        return
    path, key = reference_path(config, protocol), f"evaluate.reference.{protocol}"
    if path is None and config.evaluate.prompts != HELD_OUT:
        raise UserError(
            f"{key} is missing: set it to an .npz of mu and sigma, or to a folder of real images; {IMAGES_ONLY}"
        )
    if path is not None and not path.exists():
        raise UserError(f"{path} is missing: put it there, or set {key} to where it lies; {IMAGES_ONLY}")


def require_shapes(prompts: Sequence[Prompt]) -> None:
    """Hold captions to what the network of `shapes` can see.

    Raises:
        UserError: one names no shape.
    """
    for prompt in prompts:
        if "shape" not in named_in(prompt.caption):
            raise UserError(
                f"protocol shapes knows its own captions alone: caption {prompt.caption!r} names no shape; "
                f"{IMAGES_ONLY}"
            )


def require_enough(config: Config, extractor: ExtractorInfo) -> None:
    """Hold the number of images to what a covariance of the features takes.

    Raises:
        UserError: there are too few for a Fréchet distance.
    """
    images = config.evaluate.images
    if "moments" in parts_of(extractor.protocol) and not allows_few(extractor.protocol) and images <= extractor.width:
        raise UserError(
            f"evaluate.images = {images} is too few for {extractor.protocol}, whose features have {extractor.width:,} "
            f"dimensions: set {extractor.width + 1:,} or more (the field takes 30,000); {IMAGES_ONLY}"
        )


def parts_of(protocol: str) -> set[str]:
    """What of the statistics a protocol's figures read."""
    return {figure.part for figure in find_protocol(protocol).figures}


def compares(protocol: str) -> bool:
    """Whether a protocol has a figure that needs a reference."""
    return any(figure.compares for figure in find_protocol(protocol).figures)


def allows_few(protocol: str) -> bool:
    """Whether a Fréchet distance may come from fewer images than features are wide: it compares with its like."""
    return protocol == "shapes"


def reference_path(config: Config, protocol: str) -> Path | None:
    """The file or folder that is configured."""
    return next((path for name, path in config.evaluate.reference.items() if name == protocol), None)


def _find_reference(
    config: Config, run: RunFolder, prompts: Sequence[Prompt], extractor: ExtractorInfo
) -> Generator[Progress, None, Reference]:
    path = reference_path(config, extractor.protocol)
    reference = Reference(extractor, f"{Path(config.evaluate.prompts).name}:{prompts_sha256(prompts)[:12]}")
    if not compares(extractor.protocol):
        return reference
    if path is None:
        return (yield from _held_out(config, run, prompts, reference))
    if path.is_dir():
        statistics, identity = yield from _of_folder(config, run, path, extractor)
    else:
        statistics, identity = read_statistics(path, extractor.width), file_sha256(path)
    return replace(reference, statistics=statistics, source=f"{path.name}:{identity[:12]}")


def _of_folder(
    config: Config, run: RunFolder, folder: Path, extractor: ExtractorInfo
) -> Generator[Progress, None, tuple[Statistics, str]]:
    """Statistics of the images below a folder, kept in the run folder under a name that their bytes decide."""
    files, opened = image_files(folder), open_extractor(config, extractor.protocol)
    identity = folder_identity(folder, files, opened)
    prepared = map_ahead(lambda path: opened.protocol.prepare(read_image(path)), files, DECODERS, AHEAD)
    finding = _accumulate(config, opened, prepared, len(files))
    return (yield from _kept(run, extractor, identity, finding)), identity


def _held_out(
    config: Config, run: RunFolder, prompts: Sequence[Prompt], reference: Reference
) -> Generator[Progress, None, Reference]:
    """The images that the captions drawn belong to, and how far those of other captions are from them."""
    extractor = reference.extractor
    own = list(dict.fromkeys(prompt.image for prompt in prompts if prompt.image))
    found = replace(
        reference, statistics=(yield from _of_images(config, run, own, extractor)), source="held-out pictures"
    )
    if "moments" not in parts_of(extractor.protocol):
        return found
    others = usable_samples(config, LocalStorage(run.cache), "train").slice(0, config.evaluate.images)
    beside = yield from _of_images(config, run, others["source"].to_pylist(), extractor)
    assert found.statistics
    return replace(found, floor=frechet_distance(beside.moments, found.statistics.moments), floor_images=len(others))


def _of_images(config: Config, run: RunFolder, sources: Sequence[str], extractor: ExtractorInfo) -> Finding:
    """Statistics of images of the data set, cut as for encoding; kept like those of a folder."""
    opened = open_extractor(config, extractor.protocol)
    images = real_images(config, run, sources)
    prepared = (opened.protocol.prepare(Image.fromarray(image)) for image in images)
    finding = _accumulate(config, opened, prepared, len(sources))
    identity = digest([cache_fingerprint(config), config.resolution, list(sources), extractor.name, extractor.sha256])
    return (yield from _kept(run, extractor, identity, finding))


def _kept(run: RunFolder, extractor: ExtractorInfo, identity: str, finding: Finding) -> Finding:
    """Statistics of this identity, found once and read back ever after."""
    kept = run.evaluate / "reference" / f"{extractor.protocol}-{identity[:16]}.npz"
    if not kept.is_file():
        statistics = yield from finding
        commit_file(kept, lambda path: write_statistics(path, statistics))
    return read_statistics(kept, extractor.width)


def _accumulate(config: Config, opened: Opened, prepared: Iterable[Tensor], count: int) -> Finding:
    """Statistics of prepared images, batch by batch."""
    total: Statistics | None = None
    seen, label = 0, f"reference {opened.protocol.name}"
    yield Progress(label, 0, count, "images")
    for features in opened.features(prepared, config.evaluate.batch_size):
        part = opened.statistics(features, range(seen, seen + len(features)))
        if total is None:
            total = part
        else:
            total += part
        seen += len(features)
        yield Progress(label, seen, count, "images")
    assert total is not None
    return total
