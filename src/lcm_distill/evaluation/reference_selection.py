# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""What generated images are compared with: statistics of a file, of a folder, or of the captions' own images."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from lcm_distill.config import Config, EvaluateConfig
from lcm_distill.core.hashing import file_sha256
from lcm_distill.data.cache.cache import Cache
from lcm_distill.evaluation.feature_extractors import ExtractorInfo
from lcm_distill.evaluation.prompt_files import Prompt, prompt_source
from lcm_distill.evaluation.real_image_statistics import ReferenceStatistics
from lcm_distill.evaluation.requirements import require_captions, require_enough_real_images
from lcm_distill.metrics.frechet import frechet_distance
from lcm_distill.metrics.reference_files import image_files, read_statistics
from lcm_distill.metrics.statistics import Statistics
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress

HELD_OUT_IMAGES = "held-out pictures"
"""Source of statistics of the captions' own images, as tables of figures have it."""


@dataclass(frozen=True)
class Reference:
    """What generated images are compared with under one protocol.

    Attributes:
        extractor: the protocol's feature extractor.
        prompts: where the captions come from, with 12 digits of their hash.
        statistics: of real images; None where the protocol compares with none.
        source: what they were computed from, with 12 digits of its hash.
        real_distance: Fréchet distance of real images of other captions to `statistics`, a scale for distances of
            generated images; None where no such images are at hand.
        real_images: how many those are.
    """

    extractor: ExtractorInfo
    prompts: str
    statistics: Statistics | None = None
    source: str | None = None
    real_distance: float | None = None
    real_images: int | None = None


def find_references(
    config: Config, run: RunFolder, prompts: Sequence[Prompt], extractors: Sequence[ExtractorInfo]
) -> Generator[Progress, None, list[Reference]]:
    """A reference for each protocol, for generated images of these prompts.

    Raises:
        UserError: a reference is not what it should be, or a protocol cannot measure one of the captions.
    """
    cache, references = Cache.local(config, run), list[Reference]()
    for extractor in extractors:
        require_captions(extractor.traits, prompts)
        compute = ReferenceStatistics(cache, config.evaluate, config.device, extractor)
        references.append((yield from _find_reference(compute, config.evaluate, prompts)))
    return references


def _find_reference(
    compute: ReferenceStatistics, settings: EvaluateConfig, prompts: Sequence[Prompt]
) -> Generator[Progress, None, Reference]:
    extractor = compute.extractor
    path = settings.reference.get(extractor.protocol)
    reference = Reference(extractor, prompt_source(settings.prompts, prompts))
    if not extractor.traits.compares:
        return reference
    if path is None:
        return (yield from _held_out(compute, settings.images, prompts, reference))
    if path.is_dir():
        require_enough_real_images(len(image_files(path)), f"in {path}", extractor)
        statistics, identity = yield from compute.of_folder(path)
    else:
        statistics, identity = read_statistics(path, extractor.width), file_sha256(path)
        require_enough_real_images(statistics.images, f"in {path}", extractor)
    return replace(reference, statistics=statistics, source=f"{path.name}:{identity[:12]}")


def _held_out(
    compute: ReferenceStatistics, images: int, prompts: Sequence[Prompt], reference: Reference
) -> Generator[Progress, None, Reference]:
    """The captions' own images, and the distance of so many images of other captions to them."""
    own = list(dict.fromkeys(prompt.image for prompt in prompts if prompt.image))
    require_enough_real_images(len(own), "held out for evaluate.images (data.valid_fraction)", reference.extractor)
    statistics = yield from compute.of_data_set(own, "held-out images")
    found = replace(reference, statistics=statistics, source=HELD_OUT_IMAGES)
    if reference.extractor.traits.frechet_figure is None:
        return found
    usable = compute.cache.usable("train").slice(0, images)
    others = list(dict.fromkeys(usable["source"].to_pylist()))
    other_statistics = yield from compute.of_data_set(others, "training images")
    distance = frechet_distance(other_statistics.moments, statistics.moments)
    return replace(found, real_distance=distance, real_images=len(others))
