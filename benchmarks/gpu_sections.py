"""The sections of `gpu.py`: each measures one thing and tells its figures on standard output.

Weights are random. XL/2 at 512 px distils from a cache of noise in batches of 64, in one pass whose activations are
computed again and in passes of 16 whose activations are kept. Operations are those that `training.budget` counts, so
what is computed again counts once.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lcm_distill.config import Config, load_preset
from lcm_distill.core.device import resolve_device
from lcm_distill.pipeline.run_folder import RunFolder

PASSES = "recomputed", "kept"
"""What becomes of activations."""
KERNELS = 15
STEPS_AHEAD, STEPS = 2, 5
"""Steps that do not count, and that do."""
OPEN = contextlib.ExitStack()
"""What stays open until the process ends."""
UNTIL_FIRST_STEP = """
import os, torch
from lcm_distill.cli import main
from lcm_distill.training.loop import Trainer
run = Trainer.run
def until_first_step(training):
    for report in run(training):
        yield report
        if report.done == 1:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            print("first step", flush=True)
            os._exit(0)
Trainer.run = until_first_step
main()
"""


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        settings: of the network that is trained. batch: samples to a step.
        passes: micro-batch with activations computed again, and with activations kept.
        images: in the cache, and that are encoded. generated, encoded: to a batch.
    """

    preset: str
    device: str
    settings: tuple[str, ...]
    images: int
    batch: int
    passes: tuple[int, int]
    generated: int
    encoded: int


REAL = Scale(
    "microdit_xl_512",
    "cuda",
    ("engine.validate_every=1000000", "distill.matching.weight=0", "distill.adversarial.weight=0",
     "distill.solver=euler"),
    512, 64, (64, 16), 16, 64,
)  # fmt: skip
REHEARSAL = Scale(
    "shapes",
    "cpu",
    ("data.source=journeydb", "model.in_channels=4", "model.caption_channels=1024", "distill.matching.weight=0",
     "distill.adversarial.weight=0"),
    24, 8, (4, 2), 2, 4,
)  # fmt: skip


def tell(**figures: Any) -> None:
    """Hand figures to the process that started this section."""
    print(json.dumps(figures), flush=True)


def training_config(scale: Scale, folder: Path, micro_batch: int, recompute: bool) -> Config:
    """The distillation that is measured."""
    return load_preset(scale.preset, [
        *scale.settings, f"device={scale.device}", f"data.root='{folder / 'data set'}'",
        f"model.teacher='{folder / 'teacher.pt'}'", "distill.steps=1000", "distill.checkpoint_every=1000",
        f"distill.batch_size={scale.batch}", f"engine.micro_batch={micro_batch}",
        f"engine.activation_checkpointing={str(recompute).lower()}", "engine.tensorboard=false",
        "engine.keep_checkpoints=1", "engine.spike=0",
    ])  # fmt: skip


def prepare(scale: Scale, folder: Path) -> None:
    """A teacher with random weights, and a cache of noise behind the archives of a data set."""
    import stage

    from lcm_distill.encoders import configured
    from lcm_distill.models.networks import build_network
    from lcm_distill.stages.precompute import precompute

    config, run = training_config(scale, folder, 1, True), RunFolder(folder / "run")
    with torch.device(resolve_device(scale.device)):
        teacher = build_network(config.model, guidance_embedding=False)
        for parameter in teacher.parameters():
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.2)
    torch.save(teacher.state_dict(), folder / "teacher.pt")
    stage.write_data_set(folder / "data set", scale.images)
    clock = stage.Clock()
    configured.load_image_encoder = lambda *_: stage.WaitingVae(clock, 0.0)
    configured.load_text_encoder = lambda *_: stage.WaitingTower(clock)
    run.open(config)
    for _ in precompute(config, run):
        pass


def matmul(scale: Scale, folder: Path) -> None:
    """Operations a second of a product of 8,192-cubes in bfloat16, or of a smaller one in float32 on a CPU."""
    from lcm_distill.training.budget import matmul_rate

    tell(matmul_flop_s=matmul_rate(resolve_device(scale.device), torch.bfloat16))


def distill_recomputed(scale: Scale, folder: Path) -> None:
    """One large pass, and its kernels."""
    _, steps = distill(scale, folder, scale.passes[0], recompute=True)
    kernels, busy = longest_kernels(lambda: next(steps), scale.device == "cuda")
    tell(recomputed_kernels=kernels, recomputed_kernels_s=busy)


def distill_kept(scale: Scale, folder: Path) -> None:
    """Passes as large as fit; then a step's kernels, and what a checkpoint of everything costs."""
    training, steps = distill(scale, folder, scale.passes[1], recompute=False)
    kernels, busy = longest_kernels(lambda: next(steps), scale.device == "cuda")
    tell(kept_kernels=kernels, kept_kernels_s=busy)
    stalls = [seconds_of(lambda: training.checkpoints.save(1, training.tensors()))]
    written = seconds_of(training.checkpoints.wait)
    stalls.append(seconds_of(lambda: training.checkpoints.save(2, training.tensors())))
    tell(first_checkpoint_stall_s=stalls[0], checkpoint_stall_s=stalls[1], checkpoint_written_s=stalls[0] + written)
    os._exit(0)  # without waiting for the second one


def distill(scale: Scale, folder: Path, micro_batch: int, recompute: bool) -> tuple[Any, Iterator[Any]]:
    """Measure some steps; returns the training and its further steps."""
    from lcm_distill.training.budget import distill_flop
    from lcm_distill.training.engine.world import init_world
    from lcm_distill.training.plan import caption_tokens
    from lcm_distill.training.student import prepare as prepare_training
    from lcm_distill.training.throughput import peak_memory

    config, name = training_config(scale, folder, micro_batch, recompute), PASSES[0] if recompute else PASSES[1]
    run, began = RunFolder(folder / f"run-{name}", RunFolder(folder / "run")), time.perf_counter()
    world = OPEN.enter_context(init_world(config.device, config.engine))
    training = prepare_training(config, run, world)
    steps = training.run()
    next(steps)  # tells where it starts
    built = time.perf_counter() - began
    ahead = seconds_of(lambda: [next(steps) for _ in range(STEPS_AHEAD)])
    reserved = seconds_of(training.checkpoints.wait)  # memory for checkpoints is pinned beside the second step
    each = [seconds_of(lambda: next(steps)) for _ in range(STEPS)]
    images = scale.batch / statistics.median(each)
    tell(**{
        f"{name}_each_s": each,
        f"{name}_reserved_s": reserved,
        f"{name}_images_s": images,
        f"{name}_flop_s": images * distill_flop(config.model, config.distill, caption_tokens(config.encoders)),
        f"{name}_built_s": built,
        f"{name}_first_steps_s": ahead,
    })  # fmt: skip
    tell(**{f"{name}_peak_gb": peak_memory(world.device) * 2**30 / 1e9})
    return training, steps


def graph(scale: Scale, folder: Path) -> None:
    """One pass of a network without gradients, launched kernel by kernel and as one CUDA graph.

    The graph takes what the GPU needs; the difference is what it waits for the host.
    """
    from lcm_distill.models.networks import build_network
    from lcm_distill.models.precision import cast_matrices

    if scale is REHEARSAL:  # graphs are CUDA's
        return
    config = load_preset(scale.preset, ["data.root=x"])
    with torch.device("cuda"):
        network = build_network(config.model, guidance_embedding=True).cuda().eval()
        cast_matrices(network)
        size = config.model.latent_size
        inputs = torch.randn(16, 4, size, size), torch.randn(16), torch.randn(16, 77, 1024), torch.randn(16)
    with torch.no_grad():
        eager = [seconds_of(lambda: network(*inputs)) for _ in range(6)]
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            network(*inputs)
        replayed = [seconds_of(captured.replay) for _ in range(6)]
    tell(pass_s=statistics.median(eager[1:]), graphed_pass_s=statistics.median(replayed[1:]))


def plan(scale: Scale, folder: Path) -> None:
    """Peak memory by the figures of `lcm distill --dry-run`."""
    from lcm_distill.training.plan import plan_distillation

    run = RunFolder(folder / "run")
    figures = plan_distillation(training_config(scale, folder, scale.passes[0], recompute=True), run)
    states = sum(figures["gb_of_states"].values())
    for name, micro_batch in zip(PASSES, scale.passes, strict=True):
        tell(**{f"{name}_planned_gb": states + micro_batch * figures[f"gb_per_sample_{name}"]})


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of some work and of what it leaves to the GPU."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def longest_kernels(work: Callable[[], object], on_gpu: bool) -> tuple[list[str], float]:
    """A line for each of the kernels that take longest, and the seconds of all; for each operation, on a CPU."""
    from torch.autograd import DeviceType  # pyright: ignore[reportPrivateImportUsage]
    from torch.profiler import ProfilerActivity, profile

    # Of a GPU its kernels alone: what the host does for some ten thousand of them takes minutes to sum up.
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        seconds_of(work)
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [event for event in profiler.key_averages() if event.device_type == wanted]
    taken = {event: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events}
    total = sum(taken.values()) or 1
    longest = sorted(events, key=taken.__getitem__, reverse=True)[:KERNELS]
    lines = [f"total {total / 1e3:.1f} ms"] + [
        f"{taken[event] / total:6.1%} {taken[event] / 1e3:9.2f} ms {event.count:6d} x {event.key[:90]}"
        for event in longest
    ]
    return lines, total / 1e6


def start(scale: Scale, folder: Path) -> None:
    """From starting `lcm distill` to the end of its first step."""
    run = RunFolder(folder / "run")
    run.open(training_config(scale, folder, scale.passes[0], recompute=True))
    command = [sys.executable, "-c", UNTIL_FIRST_STEP, "distill", "--run", str(run.root)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = child.stdout.readline().strip()
        seconds = time.perf_counter() - began
    assert said == "first step", said
    tell(start_s=seconds)


def generate(scale: Scale, folder: Path) -> None:
    """Images of captions in four steps, decoded."""
    from lcm_distill.api import assemble
    from lcm_distill.evaluation.generation import batch_generator, generation_dtype

    config = load_preset(scale.preset, [f"device={scale.device}", "encoders.weights=random"])
    model = assemble(config.model, config.encoders, config.diffusion, None, "student")
    model.to(resolve_device(config.device), getattr(torch, generation_dtype(config.evaluate.dtype, config.device)))
    generated = batch_generator(model, model.sampler(4), config.evaluate.guidance[0], 0, scale.generated)
    captions, ids = [f"caption {number}" for number in range(scale.generated)], list(range(scale.generated))
    generated(captions, ids)
    seconds = seconds_of(lambda: [generated(captions, ids) for _ in range(3)])
    tell(draw_images_s=3 * scale.generated / seconds)


def encode(scale: Scale, folder: Path) -> None:
    """The stage with the real encoders, as `make bench-encoders` measures it; the embedded ones in a rehearsal."""
    import encoders

    if scale is REHEARSAL:
        ours = [f"data.root='{folder / 'data set'}'", "data.source=journeydb", f"encoders.batch_size={scale.encoded}"]
        encoders.load_preset = lambda *_: load_preset(scale.preset, ours)
    figures = encoders.measure(folder / "data set", folder / "encoded", scale.encoded)
    tell(encode_images_s=figures["images_per_second"], **{f"encode: {name}": value for name, value in figures.items()})


SECTIONS: dict[Callable[[Scale, Path], None], int] = {
    prepare: 90, matmul: 40, distill_recomputed: 110, distill_kept: 170, start: 80, graph: 40, generate: 90,
    encode: 100, plan: 80,
}  # fmt: skip
"""Each with the seconds it may take."""
