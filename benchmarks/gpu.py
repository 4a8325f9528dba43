"""What one GPU makes of distilling, generating and encoding, beside the rate of its large matrix products.

make bench-gpu                        # at most eight minutes
python benchmarks/gpu.py --rehearse   # every section, tiny and on the CPU: it shows that they run

prints last: distill_of_matmul=... draw_images_s=... encode_images_s=... start_s=... plan_error=...
and then a step's fifteen longest kernels.

Weights are random. XL/2 at 512 px distils from a cache of noise in batches of 64, in passes of 32 whose activations are
computed again and in passes of 16 whose activations are kept. Operations are those that `stages.budget` counts, so what
is computed again counts once. `start_s` goes from starting `lcm distill` to the end of its first step, kernels having
been compiled before. `plan_error` is the distance of planned from measured peak memory, over the latter, and the larger
of the two. Each section is a process with a time limit of its own: one that hangs costs its own figures alone.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lcm_distill.config import Config, load_preset
from lcm_distill.core.device import resolve_device
from lcm_distill.pipeline.run_folder import RunFolder

TOTAL_SECONDS = 480
LAST = ("distill_of_matmul", "draw_images_s", "encode_images_s", "start_s", "plan_error")
WAYS = "recomputed", "kept"
KERNELS = 15
STEPS_AHEAD, STEPS = 2, 4
"""Steps that do not count, and that do."""
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


REAL = Scale("microdit_xl_512", "cuda", ("engine.validate_every=1000000",), 512, 64, (32, 16), 16, 64)
REHEARSAL = Scale(
    "shapes",
    "cpu",
    ("data.source=journeydb", "model.in_channels=4", "model.caption_channels=1024", "distill.matching.weight=0"),
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

    from lcm_distill.data.cache import encoders
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
    encoders.load_image_encoder = lambda *_: stage.WaitingVae(clock, 0.0)
    encoders.load_text_encoder = lambda *_: stage.WaitingTower(clock)
    run.open(config)
    for _ in precompute(config, run):
        pass


def matmul(scale: Scale, folder: Path) -> None:
    """Operations a second of a product of 8,192-cubes in bfloat16, or of a smaller one in float32 on a CPU."""
    from lcm_distill.training.budget import matmul_rate

    tell(matmul_flop_s=matmul_rate(resolve_device(scale.device), torch.bfloat16))


def distill_recomputed(scale: Scale, folder: Path) -> None:
    """Large passes."""
    distill(scale, folder, scale.passes[0], recompute=True)


def distill_kept(scale: Scale, folder: Path) -> None:
    """Passes as large as fit; then a step's kernels, and what a checkpoint of everything costs."""
    training, steps = distill(scale, folder, scale.passes[1], recompute=False)
    tell(kernels=longest_kernels(lambda: next(steps), scale.device == "cuda"))
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

    config, name = training_config(scale, folder, micro_batch, recompute), WAYS[0] if recompute else WAYS[1]
    run, began = RunFolder(folder / f"run-{name}", RunFolder(folder / "run")), time.perf_counter()
    world = init_world(config.device, config.engine).__enter__()  # until the process ends
    training = prepare_training(config, run, world)
    steps = training.run()
    next(steps)  # tells where it starts
    built = time.perf_counter() - began
    ahead = seconds_of(lambda: [next(steps) for _ in range(STEPS_AHEAD)])
    seconds = seconds_of(lambda: [next(steps) for _ in range(STEPS)])
    images = STEPS * scale.batch / seconds
    tell(**{
        f"{name}_images_s": images,
        f"{name}_flop_s": images * distill_flop(config.model, config.distill, caption_tokens(config)),
        f"{name}_built_s": built,
        f"{name}_first_steps_s": ahead,
    })  # fmt: skip
    tell(**{f"{name}_peak_gb": peak_memory(world.device) * 2**30 / 1e9})
    return training, steps


def plan(scale: Scale, folder: Path) -> None:
    """Peak memory by the figures of `lcm distill --dry-run`."""
    from lcm_distill.training.plan import plan_distillation

    run = RunFolder(folder / "run")
    figures = plan_distillation(training_config(scale, folder, scale.passes[0], recompute=True), run)
    states = sum(figures["gb_of_states"].values())
    for name, micro_batch in zip(WAYS, scale.passes, strict=True):
        tell(**{f"{name}_planned_gb": states + micro_batch * figures[f"gb_per_sample_{name}"]})


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of some work and of what it leaves to the GPU."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def longest_kernels(work: Callable[[], object], on_gpu: bool) -> list[str]:
    """A line for each of the kernels that take longest; for each operation, on a CPU."""
    from torch.autograd import DeviceType  # pyright: ignore[reportPrivateImportUsage]
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        seconds_of(work)
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [event for event in profiler.key_averages() if event.device_type == wanted]
    taken = {event: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events}
    total = sum(taken.values()) or 1
    longest = sorted(events, key=taken.__getitem__, reverse=True)[:KERNELS]
    return [f"total {total / 1e3:.1f} ms"] + [
        f"{taken[event] / total:6.1%} {taken[event] / 1e3:9.2f} ms {event.count:6d} x {event.key[:90]}"
        for event in longest
    ]


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


def draw(scale: Scale, folder: Path) -> None:
    """Images of captions in four steps, decoded."""
    from lcm_distill.api import assemble
    from lcm_distill.evaluation.generation import batch_generator, generation_dtype

    config = load_preset(scale.preset, [f"device={scale.device}", "encoders.weights=random"])
    model = assemble(config.model, config.encoders, config.diffusion, None, "student")
    model.to(resolve_device(config.device), getattr(torch, generation_dtype(config.evaluate.dtype, config.device)))
    generate = batch_generator(model, model.sampler(4), config.evaluate.guidance[0], 0, scale.generated)
    captions, ids = [f"caption {number}" for number in range(scale.generated)], list(range(scale.generated))
    generate(captions, ids)
    seconds = seconds_of(lambda: [generate(captions, ids) for _ in range(3)])
    tell(draw_images_s=3 * scale.generated / seconds)


def encode(scale: Scale, folder: Path) -> None:
    """The stage with the real encoders, as `make bench-encoders` measures it; the embedded ones in a rehearsal."""
    import encoders

    if scale is REHEARSAL:
        ours = [f"data.root='{folder / 'data set'}'", "data.source=journeydb", f"encoders.batch_size={scale.encoded}"]
        encoders.load_preset = lambda *_: load_preset(scale.preset, ours)
    figures = encoders.measure(folder / "data set", folder / "encoded", scale.encoded)
    tell(encode_images_s=figures["images_per_second"])


SECTIONS: dict[Callable[[Scale, Path], None], int] = {
    prepare: 90, matmul: 40, distill_recomputed: 110, distill_kept: 170, start: 80, draw: 90, encode: 100, plan: 80,
}  # fmt: skip
"""Each with the seconds it may take."""


@dataclass
class Report:
    """What sections have told, and until when they may."""

    scale: Scale
    deadline: float
    figures: dict[str, Any] = field(default_factory=dict)

    def run(self, section: Callable[[Scale, Path], None], limit: float, folder: Path) -> None:
        """Run a section; what it told before it ended, or was ended, counts."""
        name, limit = section.__name__, min(limit, self.deadline - time.monotonic())
        if limit <= 0:
            print(f"{name}: no time left", flush=True)
            return
        output, errors = folder / f"{name}.out", folder / f"{name}.err"
        command = [sys.executable, __file__, "--section", name, "--folder", str(folder)]
        command += ["--rehearse"] if self.scale is REHEARSAL else []
        began = time.monotonic()
        with output.open("w") as out, errors.open("w") as err:
            child = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
            ended = _wait(child, limit)
        lines = output.read_text().splitlines()
        told = {key: value for line in lines if line.startswith("{") for key, value in json.loads(line).items()}
        self.figures |= told
        shown = ", ".join(f"{key} {value:.4g}" for key, value in told.items() if isinstance(value, float))
        print(f"{name}: {ended} in {time.monotonic() - began:.0f} s: {shown}", flush=True)
        if ended != "done":
            print("\n".join(errors.read_text().splitlines()[-12:]), flush=True)

    def summary(self) -> str:
        """The last line."""
        figures = self.figures
        rates = [figures[f"{sampling}_flop_s"] for sampling in WAYS if f"{sampling}_flop_s" in figures]
        pairs = [(figures.get(f"{sampling}_planned_gb"), figures.get(f"{sampling}_peak_gb")) for sampling in WAYS]
        errors = [abs(planned - measured) / measured for planned, measured in pairs if planned and measured]
        if rates and "matmul_flop_s" in figures:
            figures["distill_of_matmul"] = max(rates) / figures["matmul_flop_s"]
        if errors:
            figures["plan_error"] = max(errors)
        return " ".join(f"{name}={figures.get(name, float('nan')):.3g}" for name in LAST)


def _wait(child: subprocess.Popen[bytes], limit: float) -> str:
    try:
        code = child.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return "ended by its time limit"
    return "done" if code == 0 else f"failed with {code}"


def main() -> None:
    """Run all sections, or one of them in its own process."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rehearse", action="store_true")
    arguments.add_argument("--section", choices=[section.__name__ for section in SECTIONS])
    arguments.add_argument("--folder", type=Path)
    options = arguments.parse_args()
    scale = REHEARSAL if options.rehearse else REAL
    if options.section:
        next(section for section in SECTIONS if section.__name__ == options.section)(scale, options.folder)
        return
    if scale is REAL and not torch.cuda.is_available():
        print("PyTorch finds no CUDA device: --rehearse runs every section, tiny, on the CPU")
        return
    print(torch.cuda.get_device_name() if scale is REAL else "rehearsal on the CPU: figures mean nothing", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Report(scale, time.monotonic() + TOTAL_SECONDS)
        for section, limit in SECTIONS.items():
            report.run(section, limit, Path(folder))
    print(report.summary())
    print("\n".join(report.figures.get("kernels", ["no kernels were measured"])))


if __name__ == "__main__":
    main()
