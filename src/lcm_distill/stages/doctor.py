"""What the stages of a run need, and whether this machine has it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name
from packaging.version import Version

from lcm_distill import assets
from lcm_distill.config import Config, EncodersConfig
from lcm_distill.core import machine
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.encoders.text import text_weights_file
from lcm_distill.encoders.vae import vae_weights_file
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.report.units import format_bytes
from lcm_distill.stages import distill, evaluate, precompute
from lcm_distill.stages.stage import Stage, missing
from lcm_distill.training.plan import states_of_distillation

STAGES: Sequence[Stage] = (precompute.STAGE, distill.STAGE, evaluate.STAGE)
"""Those of `lcm run`, in their order."""
TESTED = {"python": ("3.11", "3.13"), "torch": ("2.11", "2.14")}
"""Minor releases that the whole test suite has passed with, as docs/versions.md has them."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: it is. found: what of it is here.
        verdict: `fine`; `note`, which stops nothing; or `wrong`.
        remedy: what to do; empty where there is nothing to do.
    """

    what: str
    found: str
    verdict: Literal["fine", "note", "wrong"] = "fine"
    remedy: str = ""


def doctor(config: Config, run: RunFolder) -> Iterator[Finding]:
    """Look at libraries, devices, memory, disk, the encoders' weights, and what each stage lacks; changes nothing."""
    yield _tested("python", machine.python_version())
    yield from _libraries()
    gpus = machine.gpus()
    yield from _devices(config.device, gpus)
    states, checkpoint = states_of_distillation(config)
    yield _memory(sum(states.values()), gpus if config.device != "cpu" else [])
    yield _place(run.root, (config.engine.keep_checkpoints + 1) * checkpoint)
    yield from _encoders(config.encoders, config.preset)
    before: list[str] = []
    for stage in STAGES:
        lacks = missing(stage, config, run, before)
        yield from (Finding(f"lcm {stage.name}", "cannot begin", "wrong", line) for line in lacks)
        if not lacks:
            yield Finding(f"lcm {stage.name}", "has what it needs")
            before.append(stage.name)


def require_health(findings: Sequence[Finding]) -> None:
    """Check that nothing is wrong.

    Raises:
        UserError: something is.
    """
    if count := sum(finding.verdict == "wrong" for finding in findings):
        raise UserError(f"{count} of {len(findings)} things are wrong: see the remedy of each above")


def _tested(name: str, release: Version) -> Finding:
    """A release beside those that the test suite has passed with."""
    if f"{release.major}.{release.minor}" in TESTED[name]:
        return Finding(name, str(release))
    known = " and ".join(TESTED[name])
    return Finding(
        name, str(release), "note", f"the whole suite has passed with {known}: if something fails, take these"
    )


def _libraries() -> Iterator[Finding]:
    """PyTorch, what is missing or too old, and how many others are not."""
    releases = machine.releases()
    for release in releases:
        required = release.required
        if not release.fits:
            found = "not installed" if release.installed is None else release.installed
            yield Finding(required.name, found, "wrong", f"pip install '{required.name}{required.specifier}'")
        elif required.name in TESTED:
            yield _tested(required.name, Version(release.installed or ""))
    yield Finding("libraries", f"{sum(release.fits for release in releases)} of {len(releases)} in a required release")
    yield beside_tested(releases)


def releases_of_tests() -> dict[str, str]:
    """Releases that the tests ran with, by normalised name of each library that the package requires."""
    lines = assets.TESTED_RELEASES.read_text().splitlines()
    return {canonicalize_name(name): release for name, _, release in (line.partition("==") for line in lines)}


def beside_tested(releases: Sequence[machine.Release]) -> Finding:
    """Which libraries are here in another release than the tests ran with."""
    tested, others = releases_of_tests(), list[str]()
    for release in releases:
        known = tested.get(canonicalize_name(release.required.name))
        if release.installed and known and Version(release.installed).public != known:
            others.append(f"{release.required.name} {release.installed}, not {known}")
    here = f"{len(releases) - len(others)} of {len(releases)} in the release that the tests ran with"
    return Finding("tested releases", "; ".join([here, *others]))


def _devices(configured: str, gpus: Sequence[machine.Gpu]) -> Iterator[Finding]:
    """Every GPU, and whether the configured device is here."""
    for gpu in gpus:
        memory = f"{format_bytes(gpu.memory)}, {format_bytes(gpu.free)} free"
        yield Finding(f"cuda:{gpu.index}", f"{gpu.name}, {memory}")
    if not gpus and machine.NVIDIA_DRIVER.exists():
        remedy = "install a PyTorch for CUDA that this driver supports: see https://pytorch.org/get-started"
        yield Finding("gpu", "an NVIDIA driver, and no CUDA device that PyTorch can use", "wrong", remedy)
    try:
        yield Finding("device", f"{configured} is {resolve_device(configured)}")
    except UserError as error:
        yield Finding("device", configured, "wrong", f"{error}: set device=auto for what is here")


def _memory(held: float, gpus: Sequence[machine.Gpu]) -> Finding:
    """The machine's memory, and whether it, or that of a GPU that computes, takes a distillation's `held` bytes."""
    found = f"{format_bytes(machine.memory_bytes())}, {os.cpu_count()} processors"
    if held < max((gpu.memory for gpu in gpus), default=machine.memory_bytes()):
        return Finding("memory", found)
    remedy = (
        f"weights and states of a distillation take {format_bytes(held)}: distill.moments=8bit or distill.lora.rank "
        "takes less, engine.sharding=fsdp divides them among GPUs; `lcm distill --dry-run` counts"
    )
    return Finding("memory", found, "note", remedy)


def _place(root: Path, checkpoints: float) -> Finding:
    """The disk that a run is or will be on, and whether the `checkpoints` of a distillation, in bytes, fit on it."""
    there = next(parent for parent in (root.absolute(), *root.absolute().parents) if parent.exists())
    if not there.is_dir():
        return Finding("disk", f"{there} is a file", "wrong", "choose another --run")
    if not os.access(there, os.W_OK):
        return Finding("disk", f"{there} cannot be written to", "wrong", "choose another --run")
    free = machine.free_disk_bytes(there)
    found = f"{format_bytes(free)} free at {root}"
    if checkpoints < free:
        return Finding("disk", found)
    remedy = (
        f"checkpoints of a distillation take {format_bytes(checkpoints)}, cache and images more: free some space, or"
    )
    return Finding("disk", found, "note", f"{remedy} choose another --run")


def _encoders(encoders: EncodersConfig, preset: str) -> Iterator[Finding]:
    """Whether the weights of the encoders are on this machine."""
    if encoders.weights == "random":
        yield Finding(
            "encoders.weights", "random", "note", "only to measure speed: lcm distill wants --allow-random-weights"
        )
        return
    for key, name, find in (
        ("encoders.vae", encoders.vae, vae_weights_file),
        ("encoders.text", encoders.text, text_weights_file),
    ):
        try:
            yield _weights(key, name, find(name), preset)
        except UserError as error:
            yield Finding(key, name, "wrong", str(error))


def _weights(key: str, name: str, file: Path | None, preset: str) -> Finding:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if file is not None and file.is_file():
        return Finding(key, f"{name}: {format_bytes(file.stat().st_size)}")
    fetch = (
        f"run `lcm fetch --preset {preset} --to FOLDER` on a machine with network, bring the folder here and set what "
        "it prints"
    )
    if HF_HUB_OFFLINE:
        return Finding(key, f"{name}: not here, and HF_HUB_OFFLINE is set", "wrong", fetch)
    return Finding(key, f"{name}: not here", "note", f"downloaded when first needed; without network {fetch}")
