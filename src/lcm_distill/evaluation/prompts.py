"""The captions that are drawn: held-out ones of the run's data set, or those of a file."""

from pathlib import Path

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import how_to_complete, read_catalog, usable_samples
from lcm_distill.evaluation.prompt_files import Prompt, read_prompts
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage

HELD_OUT, PARTI = "held-out", "parti"


def find_prompts(config: Config, run: RunFolder) -> list[Prompt]:
    """As many prompts as images are asked for.

    Raises:
        UserError: the run has no cache yet, nothing is held out, or the file of captions is wrong or too short.
    """
    if config.evaluate.prompts == HELD_OUT:
        return held_out_prompts(config, run)
    path, wanted = prompts_file(config.evaluate.prompts), config.evaluate.images
    prompts = read_prompts(path)
    if len(prompts) < wanted:
        raise UserError(
            f"{path} has {len(prompts):,} captions and evaluate.images is {wanted}: set evaluate.images={len(prompts)}"
        )
    return prompts[:wanted]


def held_out_prompts(config: Config, run: RunFolder) -> list[Prompt]:
    """In order of catalog row, from the start again when they run out; image ids count from 0."""
    run.require(run.cache / "manifest", how_to_complete(config, run))
    cache = LocalStorage(run.cache)
    held_out = usable_samples(config, cache, "valid")
    if not len(held_out):
        raise UserError("no image is held out: raise data.valid_fraction")
    held_out = held_out.slice(0, config.evaluate.images)
    captions = read_catalog(cache).captions["caption"].take(held_out["caption_row"])
    pairs = list(zip(captions.to_pylist(), held_out["source"].to_pylist(), strict=True))
    return [Prompt(index, *pairs[index % len(pairs)]) for index in range(config.evaluate.images)]


def prompts_file(name: str) -> Path:
    """The file that `name` stands for: `parti` is `PartiPrompts.tsv` in the working folder.

    Raises:
        UserError: PartiPrompts is asked for and not there.
    """
    if name != PARTI:
        return Path(name)
    file = Path("PartiPrompts.tsv")
    if not file.is_file():
        raise UserError(f"{file} is missing: take it from google-research/parti on GitHub and put it into this folder")
    return file
