"""Faults of processes that work: values that are not finite at one step of a training, and sudden ends."""

import math
import os
import signal
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

SAMPLES, FIGURES = ("latents", "captions"), ("teacher", "loss", "gradient")
STATES = ("model", "target", "average", "moments")


def spoil(place: str, step: int) -> None:
    """From now on, this process's training finds NaN there in this step."""
    if place in SAMPLES:
        _spoil_samples(place, step)
    elif place in STATES:
        _spoil_state(place, step)
    else:
        _spoil_figure(place, step)


def _spoil_samples(place: str, step: int) -> None:
    from lcm_distill.data.cache.loader import ShuffledBatches

    read = ShuffledBatches._read

    def spoilt(self: ShuffledBatches, number: int) -> Any:
        batch = read(self, number)
        if number == step:
            getattr(batch, place)[-1].flatten()[0] = math.nan
        return batch

    _put(ShuffledBatches, "_read", spoilt)


def _spoil_state(place: str, step: int) -> None:
    from lcm_distill.training.loop import Trainer

    take = Trainer._step

    def spoilt(self: Trainer, number: int) -> Any:
        figures = take(self, number)
        if number == step:
            moments = (state["exp_avg"] for state in self.optimiser.state.values())
            tensor = next(moments if place == "moments" else self.modules[place].parameters())
            with torch.no_grad():
                tensor.view(-1)[0] = math.nan
        return figures

    _put(Trainer, "_step", spoilt)


def _spoil_figure(place: str, step: int) -> None:
    from lcm_distill.training import student_loss
    from lcm_distill.training.loop import Trainer

    accumulate, guided, now = Trainer._accumulate, student_loss.guided_denoiser, [-1]

    def spoilt(self: Trainer, number: int) -> Any:
        now[0] = number
        losses = accumulate(self, number)
        if number == step and place == "gradient":
            next(grad for parameter in self.model.parameters() if (grad := parameter.grad) is not None).fill_(math.nan)
        return losses | ({"loss": losses["loss"] * math.nan} if number == step and place == "loss" else {})

    def spoilt_teacher(*arguments: Any) -> Any:
        denoise = guided(*arguments)
        return lambda *inputs: denoise(*inputs) * (math.nan if now[0] == step else 1)

    _put(Trainer, "_accumulate", spoilt)
    if place == "teacher":
        _put(student_loss, "guided_denoiser", spoilt_teacher)


def spoil_encoder(place: str) -> None:
    """From now on, this process's VAE or text tower gives NaN for the second item of a batch, or in its only one."""
    import lcm_distill.encoders.images as images
    import lcm_distill.encoders.text as text

    owner: Any = text.TextEncoder if place == "text" else images.ImageEncoder
    name = {"text": "encode", "vae": "encode", "decode": "decode"}[place]
    compute = getattr(owner, name)

    def spoilt(self: Any, *inputs: Any) -> Any:
        computed = compute(self, *inputs).clone(memory_format=torch.contiguous_format)
        computed[min(1, len(computed) - 1)].view(-1)[0] = math.nan
        return computed

    _put(owner, name, spoilt)


def spoil_weights(source: str, target: str) -> None:
    """Write a copy of a file of weights in which none is a number."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(source, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    spoilt = {name: tensor * math.nan if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(spoilt, target, metadata)


def die_after_commits(number: int) -> None:
    """From now on, this process is killed once it has committed so many tasks."""
    from lcm_distill.pipeline.manifest import Manifest

    commit, made = Manifest.commit, [0]

    def dying(self: Manifest, *arguments: Any) -> Any:
        entry = commit(self, *arguments)
        made[0] += 1
        if made[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return entry

    _put(Manifest, "commit", dying)


def note_work(place: Path) -> None:
    """From now on, this process adds a line to a file for each task that it commits and each step that it keeps."""
    from lcm_distill.pipeline.manifest import Manifest
    from lcm_distill.training.loop import Trainer

    commit, save = Manifest.commit, Trainer._save

    def note(what: object) -> None:
        with place.open("a") as file:
            file.write(f"{what}\n")

    def noted_commit(self: Manifest, *arguments: Any) -> Any:
        entry = commit(self, *arguments)
        note(f"{self.storage} {entry.task}")
        return entry

    def noted_save(self: Trainer, done: int, *arguments: Any, **options: Any) -> None:
        save(self, done, *arguments, **options)
        note(f"step {done}")

    _put(Manifest, "commit", noted_commit)
    _put(Trainer, "_save", noted_save)


def die_after_step(steps: int) -> None:
    """From now on, this process is killed once a training has kept its checkpoint of so many steps."""
    from lcm_distill.training.loop import Trainer

    save = Trainer._save

    def dying(self: Trainer, done: int, *arguments: Any, **options: Any) -> None:
        save(self, done, *arguments, **options)
        if done == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    _put(Trainer, "_save", dying)


def signal_in_step(steps: int, number: int, times: int = 1) -> None:
    """From now on, this process gets a signal so many times in the training step that completes so many steps."""
    from lcm_distill.training.loop import Trainer

    accumulate = Trainer._accumulate

    def signalled(self: Trainer, step: int) -> Any:
        for _ in range(times if step == steps - 1 else 0):
            signal.raise_signal(number)
        return accumulate(self, step)

    _put(Trainer, "_accumulate", signalled)


def surround(variables: Mapping[str, str]) -> None:
    """Give this process an environment, and a package `wandb` that takes everything."""

    class Anything(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *_, **__: Anything(name)

    os.environ |= variables
    sys.modules["wandb"] = Anything("wandb")
    sys.modules["wandb"].__spec__ = ModuleSpec("wandb", None)


def _put(owner: Any, name: str, function: Any) -> None:
    setattr(owner, name, function)
