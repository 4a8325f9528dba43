# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""The prompts of an evaluation: held-out captions of the run's data set, or the captions of a file."""

from collections.abc import Sequence
from pathlib import Path

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError
from lcm_distill.core.words import counted
from lcm_distill.data.cache.cache import Cache
from lcm_distill.evaluation.prompt_files import Prompt, read_prompts
from lcm_distill.pipeline.run_folder import RunFolder

HELD_OUT, PARTI = "held-out", "parti"


def find_prompts(config: Config, run: RunFolder) -> list[Prompt]:
    """`evaluate.images` prompts from the configured source.

    Raises:
        UserError: the run has no cache yet, nothing is held out, or the file of captions is wrong or too short.
    """
    settings = config.evaluate
    if settings.prompts == HELD_OUT:
        return held_out_prompts(Cache.local(config, run), settings.images)
    path = prompts_file(settings.prompts)
    prompts = read_prompts(path)
    if len(prompts) < settings.images:
        raise UserError(
            f"{path} has {counted(len(prompts), 'caption')} and evaluate.images is {settings.images}: set "
            f"evaluate.images={len(prompts)}"
        )
    return prompts[: settings.images]


def held_out_prompts(cache: Cache, count: int) -> list[Prompt]:
    """`count` held-out captions in order of catalog row, repeated where there are fewer; ids count from 0.

    Raises:
        UserError: there is no cache yet, or nothing is held out.
    """
    cache.require_begun()
    held_out = cache.usable("valid")
    if not len(held_out):
        raise UserError("no image is held out: raise data.valid_fraction")
    held_out = held_out.slice(0, count)
    captions = cache.read_catalog().captions["caption"].take(held_out["caption_row"])
    pairs = list(zip(captions.to_pylist(), held_out["source"].to_pylist(), strict=True))
    return [Prompt(index, *pairs[index % len(pairs)]) for index in range(count)]


def repetition(prompts: Sequence[Prompt]) -> str | None:
    """What is said of held-out captions that repeat, as there are fewer than images; None where all are distinct."""
    again = repeated(prompts)
    repeat = counted(len(prompts) - again, "held-out caption repeats", "held-out captions repeat")
    return repeat if again else None


def repeated(prompts: Sequence[Prompt]) -> int:
    """How many prompts are held-out captions that came before, as there are fewer of them than images."""
    held_out = {(prompt.image, prompt.caption) for prompt in prompts if prompt.image is not None}
    return len(prompts) - len(held_out) if held_out else 0


def prompts_file(name: str) -> Path:
    """The file that `name` stands for: for `parti`, `PartiPrompts.tsv` in the working folder.

    Raises:
        UserError: PartiPrompts is named and missing.
    """
    if name != PARTI:
        return Path(name)
    file = Path("PartiPrompts.tsv")
    if not file.is_file():
        raise UserError(f"{file} is missing: take it from google-research/parti on GitHub and put it into this folder")
    return file
