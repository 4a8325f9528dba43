# diffusers does not declare its classes as exported.
# pyright: reportPrivateImportUsage=false
"""Opens exported folders with diffusers, and does not use the package: `python open_folders.py JOBS.json OUT.npz`.

Each job names a folder, arguments of the pipeline and seeds of its generators; its images, (B, 3, H, W) in [0, 1], are
saved under its number.
"""

import json
import os
import re
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, ModularPipeline
from PIL import Image
from transformers import CLIPTextModel


@cache
def open_folder(folder: str, encoders: str | None = None, dtype: str | None = None) -> Any:
    """A pipeline; VAE and text encoder come from another folder if one is named."""
    options = {} if dtype is None else {"torch_dtype": getattr(torch, dtype)}
    if encoders:
        options["vae"] = AutoencoderKL.from_pretrained(encoders, subfolder="vae")
        options["text_encoder"] = CLIPTextModel.from_pretrained(encoders, subfolder="text_encoder")
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def check_calls(folder: str) -> None:
    """What diffusers' pipelines have in common."""
    pipeline = open_folder(folder)
    prompts, steps = ["a large red circle", "two small blue stars"], list[tuple[int, float]]()

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (3, 4)]

    def at_a_step(pipe: Any, index: int, sigma: torch.Tensor, tensors: dict) -> dict:
        assert pipe is pipeline and tensors["latents"].shape[0] == 2 and tensors["prompt_embeds"].dim() == 3
        steps.append((index, float(sigma)))
        return {"latents": torch.zeros_like(tensors["latents"])} if index == 1 else tensors

    common = {"prompt": prompts, "num_inference_steps": 2}
    expected = pipeline(**common, generator=generators(), output_type="pt").images
    arrays = pipeline(**common, generator=generators(), output_type="np", return_dict=False)[0]
    assert np.allclose(arrays.transpose(0, 3, 1, 2), expected.numpy())
    pictures = pipeline(**common, generator=generators()).images
    assert [image.size for image in pictures] == [(64, 64)] * 2
    latents = pipeline(**common, generator=generators(), output_type="latent").images
    assert latents.shape == (2, 8, 8, 8)
    changed = pipeline(
        **common, callback_on_step_end=at_a_step, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
        output_type="latent",
    ).images  # fmt: skip
    assert [index for index, _ in steps] == [0, 1] and steps[0][1] == 80.0 and not changed.any()
    check_interruption(pipeline)
    one_each = [pipeline(prompt, 2, generator=each, output_type="pt").images for prompt, each in
                zip(prompts, generators(), strict=True)]  # fmt: skip
    assert torch.allclose(torch.cat(one_each), expected, atol=1e-4)
    assert len(pipeline(prompts[0], 1, num_images_per_prompt=3, output_type="pt").images) == 3
    for wrong in ({"guidance_scale": -1.0}, {"num_inference_steps": 0}, {"latents": torch.zeros(1)},
                  {"num_images_per_prompt": 0}, {"prompt": None, "prompt_embeds": torch.zeros(1, 16, 3)}):  # fmt: skip
        refused(lambda wrong=wrong: pipeline(**{**common, **wrong}), next(reversed(wrong)))
    for prompt in ("", [], [""], ["a ring", " "], None, 5):
        refused(lambda prompt=prompt: pipeline(prompt, 1), f"prompt is {prompt!r}: give a caption or several")
    for kind in ("tensor", None):
        said = f"output_type is {kind!r}: it must be pil, np, pt or latent"
        refused(lambda kind=kind: pipeline(**common, output_type=kind), said)
    for count in (1, 3):
        given = [torch.Generator() for _ in range(count)]
        refused(lambda given=given: pipeline(**common, generator=given), f"generators: {count} for 2 images; give one")
    refused(
        lambda: pipeline(**common, callback_on_step_end=at_a_step, callback_on_step_end_tensor_inputs=["foo"]),
        "callback_on_step_end_tensor_inputs is 'foo': it must be latents or prompt_embeds",
    )


def check_interruption(pipeline: Any) -> None:
    """A callback stops the steps as in pipelines of diffusers, and the next call makes all of its own."""
    steps = list[int]()

    def stop_at_the_second(pipe: Any, index: int, sigma: torch.Tensor, given: dict[str, Any]) -> None:
        steps.append(index)
        pipe._interrupt = index == 1

    for _ in range(2):
        pipeline("a large red circle", 4, callback_on_step_end=stop_at_the_second)
    assert steps == [0, 1] * 2 and pipeline.interrupt and pipeline.num_timesteps == 4
    assert pipeline.guidance_scale == pipeline.config.guidance_scale


def refused(call: Callable[[], Any], said: str) -> None:
    """A call ends with one line that says something."""
    try:
        call()
    except ValueError as error:
        assert said in str(error) and "\n" not in str(error), error
    else:
        raise AssertionError(f"{said} was taken")


def check_modular(folder: str) -> None:
    """The same images as blocks of a modular pipeline."""
    call = {"prompt": ["a large red circle", "two small blue stars"], "num_inference_steps": 3, "output_type": "pt"}
    pipeline: Any = ModularPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.load_components(pretrained_model_name_or_path=folder)
    images = pipeline(**call, generator=torch.Generator().manual_seed(1), output="images")
    expected = open_folder(folder)(**call, generator=torch.Generator().manual_seed(1)).images
    assert torch.allclose(images, expected, atol=1e-5) and images.shape == (2, 3, 64, 64)
    latents, embeds = (pipeline(**call, output=name) for name in ("latents", "prompt_embeds"))
    assert latents.shape == (2, 8, 8, 8) and embeds.shape == (2, 16, 64)
    for kind in ("latent", "tensor"):
        said = f"output_type is {kind!r}: it must be pil, np or pt"
        refused(lambda kind=kind: pipeline(**{**call, "output_type": kind}), said)
    refused(lambda: pipeline(**call, generator=[torch.Generator()] * 3), "generators: 3 for 2 images")
    refused(lambda: pipeline(**{**call, "prompt": []}), "prompt is []: give a caption or several")
    index = json.loads(Path(folder, "model_index.json").read_text())
    assert pipeline.config.guidance_scale == index["guidance_scale"] == 2.0 and "5.0" not in pipeline.doc


def check_warnings(folder: str) -> None:
    """Pipeline and blocks warn of guidance that a student was not trained with, and of no other."""
    pipeline: Any = ModularPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.load_components(pretrained_model_name_or_path=folder)
    for opened in (open_folder(folder), pipeline):
        for guidance, count in ((1.0, 0), (None, 0), (3.0, 0), (3.5, 1), (0.5, 1)):
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                opened(prompt="a large red circle", num_inference_steps=1, guidance_scale=guidance)
            said = [str(each.message) for each in found if issubclass(each.category, UserWarning)]
            told = [text for text in said if "lies outside 1 to 3, which this student was trained on" in text]
            assert len(told) == count, (guidance, said)


def check_saved(folder: str) -> None:
    """What `save_pretrained` writes opens again, twice in a row, and gives the same images."""
    call = {"prompt": "a large red circle", "num_inference_steps": 2, "output_type": "pt"}
    pipeline, images = open_folder(folder), list[torch.Tensor]()
    index = json.loads(Path(folder, "model_index.json").read_text())
    with TemporaryDirectory() as place:
        for name in ("once", "twice"):
            saved = Path(place, name)
            pipeline.save_pretrained(saved)
            for file in ("pipeline.py", "transformer/microdit.py", "scheduler/microdit_scheduler.py"):
                assert (saved / file).read_bytes() == Path(folder, file).read_bytes()
            written = json.loads((saved / "model_index.json").read_text())
            assert index == {key: value for key, value in written.items() if key != "_name_or_path"}
            pipeline = open_folder(str(saved))
            images.append(pipeline(**call, generator=torch.Generator().manual_seed(1)).images)
    expected = open_folder(folder)(**call, generator=torch.Generator().manual_seed(1)).images
    apart = max(float((each - expected).abs().max()) for each in images)
    assert apart < 1e-5, apart


def check_dtypes(folder: str) -> None:
    """Products in bfloat16 change an image little, and what else is computed stays float32."""
    call = {"prompt": ["a large red circle"], "num_inference_steps": 1, "output_type": "latent"}
    exact, low = open_folder(folder), open_folder(folder, dtype="bfloat16")
    types = {name: parameter.dtype for name, parameter in low.transformer.named_parameters()}
    assert types["blocks.0.attn.qkv.weight"] == torch.bfloat16 and types["blocks.0.norm1.weight"] == torch.float32
    assert low.vae.dtype == torch.bfloat16
    ours, theirs = (pipe(**call, generator=torch.Generator().manual_seed(1)).images for pipe in (low, exact))
    assert 1e-5 < float((ours - theirs).norm() / theirs.norm()) < 0.1


def check_lacking(folder: str) -> None:
    """A folder without encoders says what it needs when it needs it."""
    try:
        open_folder(folder)("a large red circle")
    except ValueError as error:
        assert "text_encoder=..." in str(error)
    else:
        raise AssertionError("no text encoder was needed")


def check_card(folder: str) -> None:
    """Each snippet of a folder's card writes an image; `FOLDER` is that of the student with its encoders."""
    os.chdir(Path(folder).parent)
    snippets = re.findall(r"```python\n(.*?)```", Path(folder, "README.md").read_text(), re.DOTALL)
    assert len(snippets) == 2 and "ModularPipeline" in snippets[1]
    pictures = list[np.ndarray]()
    for snippet in snippets:
        torch.manual_seed(3)
        exec(snippet.replace("FOLDER/", "student/"), {})
        with Image.open("image.png") as image:
            pictures.append(np.asarray(image))
        Path("image.png").unlink()
    assert pictures[0].shape == (64, 64, 3) and (pictures[0] == pictures[1]).all()


def main() -> None:
    """All jobs, in one process."""
    images = dict[str, np.ndarray]()
    for number, job in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        if job.get("check"):
            globals()[job["check"]](job["folder"])
            continue
        pipeline = open_folder(job["folder"], job.get("encoders"), job.get("dtype"))
        generators = [torch.Generator().manual_seed(seed) for seed in job["seeds"]]
        images[str(number)] = pipeline(**job["call"], generator=generators, output_type="pt").images.float().numpy()
    np.savez(sys.argv[2], allow_pickle=False, **images)


if __name__ == "__main__":
    main()
