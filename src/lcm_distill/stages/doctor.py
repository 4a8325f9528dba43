"""What the stages of a run need, and whether this machine has it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.version import Version

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
    yield from _devices(config.device)
    yield Finding("memory", f"{format_bytes(machine.memory_bytes())}, {os.cpu_count()} processors")
    yield _place(run.root)
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


def _devices(configured: str) -> Iterator[Finding]:
    """Every GPU, and whether the configured device is here."""
    found = machine.gpus()
    for gpu in found:
        memory = f"{format_bytes(gpu.memory)}, {format_bytes(gpu.free)} free"
        yield Finding(f"cuda:{gpu.index}", f"{gpu.name}, {memory}")
    if not found and machine.NVIDIA_DRIVER.exists():
        remedy = "install a PyTorch for CUDA that this driver supports: see https://pytorch.org/get-started"
        yield Finding("gpu", "an NVIDIA driver, and no CUDA device that PyTorch can use", "wrong", remedy)
    try:
        yield Finding("device", f"{configured} is {resolve_device(configured)}")
    except UserError as error:
        yield Finding("device", configured, "wrong", f"{error}: set device=auto for what is here")


def _place(root: Path) -> Finding:
    """The disk that a run is or will be on."""
    there = next(parent for parent in (root.absolute(), *root.absolute().parents) if parent.exists())
    if not there.is_dir():
        return Finding("disk", f"{there} is a file", "wrong", "choose another --run")
    if not os.access(there, os.W_OK):
        return Finding("disk", f"{there} cannot be written to", "wrong", "choose another --run")
    return Finding("disk", f"{format_bytes(machine.free_disk_bytes(there))} free at {root}")


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
