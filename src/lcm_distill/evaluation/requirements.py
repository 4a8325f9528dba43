"""What measuring needs, checked before anything is generated."""

from collections.abc import Sequence

from lcm_distill.config import Config, EvaluateConfig
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.data.teacher_fit import trained_student
from lcm_distill.evaluation.feature_extractors import IMAGES_ONLY, ExtractorInfo, chosen_protocols, find_extractor
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.evaluation.prompts import HELD_OUT, find_prompts
from lcm_distill.evaluation.samplings import student_sampling
from lcm_distill.metrics.protocol import MetricProtocol
from lcm_distill.metrics.protocols.clip import CLIP_VIT_B_32
from lcm_distill.metrics.registry import find_protocol
from lcm_distill.models.checkpoint import require_fit
from lcm_distill.models.networks import build_network
from lcm_distill.pipeline.run_folder import RunFolder


def find_extractors(settings: EvaluateConfig) -> list[ExtractorInfo]:
    """The feature extractors of the configured protocols, once all that measuring needs is known to be there.

    Raises:
        UserError: no protocol is configured, or an unknown one; weights or a reference are missing; or there are too
            few images.
    """
    protocols = chosen_protocols(settings)
    if not protocols:
        raise UserError("evaluate.protocols is empty: name a metric protocol to measure with")
    for protocol in protocols:
        require_reference(settings, protocol.name)
    return [require_extractor(settings, protocol.name) for protocol in protocols]


def require_extractor(settings: EvaluateConfig, protocol: str) -> ExtractorInfo:
    """A protocol's feature extractor, once it is known that there are enough images for its figures.

    Raises:
        UserError: its weights are missing, or not what they should be; or there are too few images.
    """
    extractor = find_extractor(settings, protocol)
    require_enough_images(settings.images, extractor)
    return extractor


def require_reference(settings: EvaluateConfig, protocol: str) -> None:
    """Check that what a protocol compares with is configured and exists.

    Raises:
        UserError: no reference is named, or the file or folder is missing.
    """
    if not find_protocol(protocol).compares:
        return
    path, key = settings.reference.get(protocol), f"evaluate.reference.{protocol}"
    if path is None and settings.prompts != HELD_OUT:
        raise UserError(
            f"{key} is missing: set it to an .npz of mu and sigma, or to a folder of real images; {IMAGES_ONLY}"
        )
    if path is not None and not path.exists():
        raise UserError(f"{path} is missing: put it there, or set {key} to where it is; {IMAGES_ONLY}")


def require_student(config: Config, run: RunFolder) -> None:
    """Check that a run's student is there, and one of the configured sizes; no tensor is read.

    Raises:
        UserError: it is missing, a folder, unreadable, a teacher's, or of other sizes.
    """
    trained_student(config, run)
    student_sampling(config, run.student)
    require_fit(build_network(config.model, guidance_embedding=True, empty=True), run.student)


def require_captions(protocol: MetricProtocol, prompts: Sequence[Prompt]) -> None:
    """Check that a protocol can measure images of these captions.

    Raises:
        UserError: it refuses one.
    """
    if refusal := caption_refusal(protocol, prompts):
        raise UserError(
            f"evaluate.protocols: {refusal}: choose other captions by evaluate.prompts, or another protocol, such as "
            f"--set 'evaluate.protocols=[\"{CLIP_VIT_B_32.name}\"]'; {IMAGES_ONLY}"
        )


def caption_refusal(protocol: MetricProtocol, prompts: Sequence[Prompt]) -> str | None:
    """The first caption whose image a protocol cannot measure, and why, in words; None where it measures all."""
    for prompt in prompts:
        if reason := protocol.refuse_caption(prompt.caption):
            return f"{protocol.name} cannot measure caption {prompt.caption!r}, which {reason}"
    return None


def unmeasured(config: Config, run: RunFolder) -> str | None:
    """Why a configured protocol cannot measure a run's captions, in words; None where all can, or they are not here.

    Raises:
        DataError: the captions are damaged.
    """
    try:
        protocols, prompts = chosen_protocols(config.evaluate), find_prompts(config, run)
    except DataError:
        raise
    except UserError:
        return None
    return next((refusal for protocol in protocols if (refusal := caption_refusal(protocol, prompts))), None)


def require_enough_real_images(images: int | None, source: str, extractor: ExtractorInfo) -> None:
    """Check that there are enough real images, where their number is known, for a protocol's figures.

    Args:
        source: of the images, for the message.

    Raises:
        UserError: there are too few.
    """
    protocol, width = extractor.traits, extractor.width
    least = protocol.minimum_images(width)
    if images is None or images >= least:
        return
    reason = "" if protocol.allows_few else f", whose features have {width:,} dimensions"
    raise UserError(
        f"{source} are {images:,} real images, too few for {protocol.name}{reason}: set "
        f"evaluate.reference.{protocol.name} to {least:,} or more, or choose another of evaluate.protocols; "
        f"{IMAGES_ONLY}"
    )


def require_enough_images(images: int, extractor: ExtractorInfo) -> None:
    """Check that there are enough images for a protocol's figures.

    Raises:
        UserError: there are too few.
    """
    protocol, width = extractor.traits, extractor.width
    least = protocol.minimum_images(width)
    if images >= least:
        return
    reason = "" if protocol.allows_few else f", whose features have {width:,} dimensions"
    usual = "" if protocol.allows_few else " (30,000 are usual)"
    raise UserError(
        f"evaluate.images = {images} is too few for {protocol.name}{reason}: set {least:,} or more{usual}; "
        f"{IMAGES_ONLY}"
    )
