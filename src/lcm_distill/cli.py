"""The command line: parse, call one stage, show what it says."""

import json
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from lcm_distill.core.errors import UserError

if TYPE_CHECKING:
    from lcm_distill.config import Config
    from lcm_distill.pipeline.run_folder import RunFolder
    from lcm_distill.pipeline.task import Progress

app = typer.Typer(
    help="Distil a text-to-image diffusion transformer into one that draws in one to five steps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(help="Look after the cache of a run.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
screen = Console(stderr=True)

Preset = Annotated[str | None, typer.Option(help="Configuration that ships: `shapes`, `original`, `microdit_xl_512`.")]
File = Annotated[Path | None, typer.Option("--config", help="Configuration file, in the presets' form.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key: section.key=value.")]
Run = Annotated[Path | None, typer.Option(help="Run folder; runs/PRESET if not given. A run goes on where it stopped.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
AllowRandom = Annotated[
    bool,
    typer.Option("--allow-random-weights", help="Train although encoders.weights = random, to measure speed only."),
]
DryRun = Annotated[bool, typer.Option(help="Say what would be done, and do nothing.")]
Place = Annotated[
    Literal["auto", "serial", "processes", "ranks", "ray"],
    typer.Option("--executor", help="Where work runs; auto: launched ranks, or a process a GPU, or here."),
]

Workers = Annotated[int | None, typer.Option(min=1, help="Processes or actors; as many as GPUs if unset.")]
RayAddress = Annotated[str | None, typer.Option(help="Ray cluster; one is started here if unset.")]
Captions = Annotated[list[str] | None, typer.Argument(metavar="[CAPTION]...", help="Captions to draw.")]
Prompts = Annotated[
    str | None, typer.Option(metavar="parti|held-out|FILE", help="Captions of a file (.csv, .json, .tsv, .txt).")
]
Count = Annotated[int, typer.Option(min=1, help="How many of --prompts, spread evenly over them.")]
Model = Annotated[str, typer.Option("--run", help="Run folder, or `shapes` for the model that ships.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale; the run's own if not given.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the noise.")]


@app.command()
def precompute(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    json: Json = False,
    dry_run: DryRun = False,
    executor: Place = "auto",
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Stage one: encode images and captions into a cache."""
    _work(["precompute"], _Choice(preset, config, set, run), json, dry_run, place=(executor, workers, ray_address))


@app.command()
def distill(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    json: Json = False,
    dry_run: DryRun = False,
    allow_random_weights: AllowRandom = False,
) -> None:
    """Stage two: train the few-step student from its teacher, on the cache alone."""
    _work(["distill"], _Choice(preset, config, set, run), json, dry_run, allow_random_weights)


@app.command()
def schedule(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Search for the noise levels that a student jumps from, and store them with it."""
    _work(["schedule"], _Choice(preset, config, set, run), json, dry_run)


@app.command()
def evaluate(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    json: Json = False,
    dry_run: DryRun = False,
    steps: Annotated[str | None, typer.Option(metavar="N,N", help="Steps of student and teacher.")] = None,
    guidance: Annotated[str | None, typer.Option(metavar="W,W", help="Guidance scales; each with every step.")] = None,
    models: Annotated[str | None, typer.Option(metavar="teacher,student", help="Who draws.")] = None,
    images_only: Annotated[bool, typer.Option("--images-only", help="Draw, and measure nothing.")] = False,
    executor: Place = "auto",
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Stage three: draw captions with teacher and student, and compare them."""
    with _one_line_errors():
        choice = _Choice(preset, config, set, run)
        choice.sweep(steps, guidance, models)
    place = (executor, workers, ray_address)
    _work(["evaluate"], choice, json, dry_run, place=place, images_only=images_only)


@app.command(name="run")
def run_all(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    json: Json = False,
    dry_run: DryRun = False,
    allow_random_weights: AllowRandom = False,
) -> None:
    """All three stages: precompute, distill, evaluate."""
    stages = ["precompute", "distill", "evaluate"]
    _work(stages, _Choice(preset, config, set, run), json, dry_run, allow_random_weights)


@app.command()
def ablate(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Annotated[Path, typer.Option(help="Run folder. A run goes on where it stopped.")] = Path("runs/ablation"),
    only: Annotated[str | None, typer.Option(metavar="STEP,STEP", help="These steps; all if not given.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each step, a seed each.")] = 3,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train the chain of changes from the original recipe to ours, and write the table of what each gains."""
    with _one_line_errors():
        from lcm_distill.config.ablation import load_ablation

        choice = _Choice(preset, config, set, run)
        ablation = load_ablation(choice.load()[0].preset)
        settings, folder = choice.load(ablation.settings)
        steps = ablation.select(only.split(",") if only else [])
        if dry_run:
            from lcm_distill.stages.plans import plan_ablation

            plan = plan_ablation(settings, folder, steps, seeds)
            _print(plan, json, lambda: _print_ablation_plan(plan))
            return
        _refuse_random_weights(settings, ["distill"])
        _announce(settings)
        _show(_stage("ablate")(settings, folder, steps, seeds))
        rows = _result(settings, folder, "ablate")
        from lcm_distill.report.ablation import headline

        _print({"figures": headline(rows), "rows": rows}, json, lambda: _print_ablation(folder, rows))


@app.command()
def pretrain(
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    run: Run = None,
    json: Json = False,
    dry_run: DryRun = False,
    allow_random_weights: AllowRandom = False,
) -> None:
    """Precompute, then train a teacher by denoising."""
    _work(["precompute", "pretrain"], _Choice(preset, config, set, run), json, dry_run, allow_random_weights)


@app.command()
def fetch(
    to: Annotated[Path, typer.Option(help="Folder for the weights; what is there already is not fetched again.")],
    text_only: Annotated[bool, typer.Option("--text-only", help="Leave the VAE out.")] = False,
    preset: Preset = None,
    config: File = None,
    set: Set = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Fetch the VAE and the text tower alone, for machines without network; say which settings use them."""
    with _one_line_errors():
        from lcm_distill.stages import fetch as stage

        encoders = _Choice(preset, config, set, None).load()[0].encoders
        if dry_run:
            plan = stage.plan_fetch(encoders, to, text_only)
            _print(plan, json, lambda: _print_status(plan))
            return
        with screen.status("fetching"):
            settings = stage.fetch(encoders, to, text_only)
        _print(settings, json, lambda: print(_as_options(settings)))


@app.command()
def sample(
    captions: Captions = None,
    prompts: Prompts = None,
    count: Count = 12,
    out: Annotated[Path, typer.Option(help="Image to write: a labelled grid.")] = Path("sample.png"),
    run: Model = "shapes",
    steps: Annotated[
        list[int] | None, typer.Option(help="Steps of the student; may be given again. 1, 2 and 4 if not given.")
    ] = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Draw captions with a student and write a labelled grid."""
    with _one_line_errors():
        from lcm_distill.stages import sample as stage

        with screen.status("drawing"):
            chosen = stage.choose_prompts(run, captions or [], prompts, count)
            result = stage.sample(run, chosen, steps or [1, 2, 4], guidance, seed, out)
        _print(result, json, lambda: screen.print(f"wrote [bold]{out}[/]"))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    format: Annotated[
        Literal["safetensors", "pt"],
        typer.Option(help="`pt`: a plain dictionary, as the original reads it."),
    ] = "safetensors",
    out: Annotated[Path | None, typer.Option(help="File; student-export.* in the run folder if unset.")] = None,
    json: Json = False,
) -> None:
    """Write the student as one file: the finished one, or that of the newest checkpoint."""
    with _one_line_errors():
        from lcm_distill.stages import export as stage

        result = stage.export(*_stored(run), format, out)
        _print(result, json, lambda: _print_status({"export": result}))


@app.command()
def compare_samplers(
    captions: Captions = None,
    prompts: Prompts = None,
    count: Count = 6,
    out: Annotated[Path, typer.Option(help="Image to write: a labelled grid.")] = Path("compare-samplers.png"),
    run: Model = "shapes",
    steps: Annotated[int, typer.Option(min=1, help="Steps of both.")] = 5,
    solver: Annotated[Literal["heun", "euler"], typer.Option(help="The teacher's solver.")] = "heun",
    guidance: Guidance = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Draw captions with teacher and student, in as many steps from the same noise, side by side."""
    with _one_line_errors():
        from lcm_distill.stages import sample as stage

        with screen.status("drawing"):
            chosen = stage.choose_prompts(run, captions or [], prompts, count)
            result = stage.compare_samplers(run, chosen, steps, solver, guidance, seed, out)
        _print(result, json, lambda: screen.print(f"wrote [bold]{out}[/]"))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders that `lcm evaluate` has measured.")],
    out: Annotated[Path, typer.Option(help="Result, with suffixes .md, .png and .parquet.")] = Path("compare"),
    json: Json = False,
) -> None:
    """Figures of runs in one table and one chart, students beside their teachers."""
    with _one_line_errors():
        from lcm_distill.stages.compare import compare as stage

        rows = stage(runs, out)
        _print(rows, json, lambda: print(out.with_suffix(".md").read_text()))
        screen.print(f"chart and rows: [bold]{out}.png[/], [bold]{out}.parquet[/]")


@app.command()
def status(run: Annotated[Path, typer.Option(help="Run folder.")], json: Json = False) -> None:
    """How far a run has come, and what it quarantined."""
    with _one_line_errors():
        from lcm_distill.stages import status as stage

        config, folder = _stored(run)
        result = stage.status(config, folder)
        _print(result, json, lambda: _print_status(result))


@app.command()
def inspect(
    sql: Annotated[
        str,
        typer.Argument(help="Query over samples, captions, manifest, events, images, scores, metrics, guidance ..."),
    ],
    run: Annotated[Path, typer.Option(help="Run folder.")],
    json: Json = False,
) -> None:
    """Ask DuckDB about a run."""
    with _one_line_errors():
        from lcm_distill.report.tables import plain_table
        from lcm_distill.stages import status as stage

        rows = stage.inspect(*_stored(run), sql)
        _print(rows, json, lambda: Console().print(plain_table(rows)))


@app.command()
def verify(
    run: Annotated[Path, typer.Option(help="Run folder.")],
    repair: Annotated[bool, typer.Option("--repair", help="Encode what is broken again.")] = False,
    json: Json = False,
) -> None:
    """Compare every row of the cache with what was written; say what is broken, or mend it."""
    with _one_line_errors():
        from lcm_distill.stages.verify import Verification

        verification = Verification(*_stored(run))
        _show(verification.check())
        if repair and verification.damage:
            _show(verification.repair())
        result = verification.result()
        _print(result, json, lambda: _print_verification(result))
        verification.raise_if_broken()


@cache_app.command()
def compact(run: Annotated[Path, typer.Option(help="Run folder.")], json: Json = False) -> None:
    """Merge the manifest's many parts into few files, so that queries over thousands of parts are fast."""
    with _one_line_errors():
        from lcm_distill.data.cache.cache import how_to_complete, open_manifest
        from lcm_distill.pipeline.compaction import compact as merge
        from lcm_distill.pipeline.storage import LocalStorage

        config, folder = _stored(run)
        folder.require(folder.cache / "manifest", how_to_complete(config, folder))
        manifest = open_manifest(LocalStorage(folder.cache))
        _show(merge(manifest))
        result = {"tasks": len(manifest.task_names()), "files": len(manifest.merged_files())}
        _print(result, json, lambda: _print_status({"manifest": result}))


@cache_app.command()
def pull(run: Annotated[Path, typer.Option(help="Run folder.")], json: Json = False) -> None:
    """Copy a cache that is made in an object store to the run folder, where training reads it."""
    with _one_line_errors():
        from lcm_distill.data.cache.cache import open_manifest
        from lcm_distill.pipeline.storage import LocalStorage
        from lcm_distill.stages.pull import pull as copy

        config, folder = _stored(run)
        _show(copy(config, folder))
        result = {"tasks": len(open_manifest(LocalStorage(folder.cache)).task_names()), "cache": str(folder.cache)}
        _print(result, json, lambda: _print_status({"cache": result}))


def main() -> None:
    """Entry point of `lcm`."""
    warnings.showwarning = lambda message, *_: print(f"lcm: {message}", file=sys.stderr)
    app()


RESULTS = {
    "schedule": "SELECT steps, arg_min(sigmas, distance) AS sigmas, min(distance) AS distance, count(*) AS trials "
    "FROM schedule GROUP BY steps ORDER BY steps",
    "evaluate": "FROM metrics",
    "ablate": "FROM ablation",
}
"""What a stage's result is, by query; that of others is in `lcm status`."""


class _Choice:
    """Which configuration and run folder the options name."""

    def __init__(self, preset: str | None, file: Path | None, assignments: list[str] | None, run: Path | None) -> None:
        self.preset, self.file, self.run, self.assignments = preset, file, run, assignments or []

    def load(self, settings: Sequence[str] = ()) -> tuple["Config", "RunFolder"]:
        """Configuration and run folder; `settings` are assignments below the user's own, for a run that is new."""
        from lcm_distill.config import load_file, load_preset
        from lcm_distill.pipeline.run_folder import RunFolder

        if self.preset and self.file:
            raise UserError("--preset and --config exclude each other")
        stored = RunFolder(self.run).config if self.run else None
        if self.file:
            config = load_file(self.file, [*settings, *self.assignments])
        elif self.preset is None and stored is not None and stored.is_file():
            config = load_file(stored, self.assignments)
        else:
            config = load_preset(self.preset or "shapes", [*settings, *self.assignments])
        return config, RunFolder(self.run or Path("runs") / config.preset)

    def sweep(self, steps: str | None, guidance: str | None, models: str | None) -> None:
        """Add what is to be varied; the teacher takes the steps with every solver that it is measured with."""
        if guidance is not None:
            self.assignments.append(f"evaluate.guidance={_numbers('--guidance', guidance, float)}")
        if models is not None:
            self.assignments.append(f"evaluate.models={models.split(',')}")
        if steps is not None:
            counts = _numbers("--steps", steps, int)
            solvers = dict.fromkeys(solver for solver, _ in self.load()[0].evaluate.teacher)
            teacher = [[solver, count] for solver in solvers for count in counts]
            self.assignments += [f"evaluate.student_steps={counts}", f"evaluate.teacher={teacher}"]


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        return [kind(number) for number in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} {text}: write numbers with commas between, such as 1,2,4") from error


class _one_line_errors:
    """Ends the process with one line for an error a user can cause, and with 130 for Ctrl-C."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            print(f"lcm: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        if isinstance(error, KeyboardInterrupt):
            print("lcm: interrupted; the same command goes on from here", file=sys.stderr)
            sys.stderr.flush()
            os._exit(130)  # threads of native libraries would delay an ordinary exit
        if isinstance(error, OSError) and error.filename is not None:
            print(f"lcm: {error.filename}: {error.strerror}", file=sys.stderr)
            raise SystemExit(4) from None


def _work(
    stages: list[str],
    choice: _Choice,
    as_json: bool,
    dry_run: bool,
    allow_random_weights: bool = False,
    place: tuple[Literal["auto", "serial", "processes", "ranks", "ray"], int | None, str | None] = ("auto", None, None),
    images_only: bool = False,
) -> None:
    with _one_line_errors():
        config, folder = choice.load()
        if "pretrain" in stages and config.pretrain and not config.pretrain.own_share:
            stages = ["pretrain"]  # on caches of other runs alone
        if dry_run:
            from lcm_distill.stages.plans import plan

            result = {stage: plan(stage, config, folder, images_only) for stage in stages}
            _print(result, as_json, lambda: _print_status(result))
            return
        if not allow_random_weights:
            _refuse_random_weights(config, stages)
        leads = _leads()
        if leads:
            _announce(config)
        folder.open(config)
        for stage in stages:
            if stage in ("precompute", "evaluate"):
                from lcm_distill.pipeline.executors.choice import choose_executor

                options = {"images_only": images_only} if stage == "evaluate" else {}
                _show(_stage(stage)(config, folder, choose_executor(*place, device=config.device), **options))
            elif leads or stage in ("distill", "pretrain"):  # in which all ranks train together
                _show(_stage(stage)(config, folder), silent=not leads)
        if not leads:
            return
        result = _result(config, folder, stages[-1])
        _print(result, as_json, lambda: _print_result(folder, stages[-1], result))


def _refuse_random_weights(config: "Config", stages: list[str]) -> None:
    """Before anything is done: no training on what random encoders made, unless it is asked for."""
    if config.encoders.weights == "random" and not {"distill", "pretrain"}.isdisjoint(stages):
        raise UserError(
            "encoders.weights = 'random': what is trained on such a cache is worth nothing; set "
            "encoders.weights=pretrained, or give --allow-random-weights to measure speed"
        )


def _announce(config: "Config") -> None:
    """Say on standard error what of a run is not the real thing."""
    from lcm_distill.report.tables import stand_in_notice

    for notice in stand_in_notice(config.stand_ins, "[dim]{}[/]"):
        screen.print(notice, soft_wrap=True)
    if config.encoders.weights == "random":
        screen.print(
            "[bold red]RANDOM WEIGHTS: encoders.weights = random; the cache serves to measure speed only[/]",
            soft_wrap=True,
        )


def _as_options(settings: dict[str, str]) -> str:
    import shlex

    return shlex.join(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))


def _stage(name: str) -> Callable[..., Iterator["Progress"]]:
    from importlib import import_module

    return getattr(import_module(f"lcm_distill.stages.{name}"), name)


def _leads() -> bool:
    """Whether this process tells how work goes: the first of a launcher's ranks, or one that no launcher started."""
    from lcm_distill.pipeline.executors.ranks import launched_ranks

    ranks = launched_ranks()
    return ranks is None or ranks.leads


def _show(reports: Iterator["Progress"], silent: bool = False) -> None:
    from lcm_distill.report.progress import show_progress

    if silent:
        deque(reports, maxlen=0)
    else:
        show_progress(reports, screen)


def _result(config: "Config", folder: "RunFolder", stage: str) -> Any:
    from lcm_distill.stages import status as stages

    if query := RESULTS.get(stage):
        return stages.inspect(config, folder, query)
    return stages.status(config, folder)[stage]


def _print_result(folder: "RunFolder", stage: str, result: Any) -> None:
    from lcm_distill.report.tables import metrics_table, plain_table

    if stage == "schedule":
        Console(width=None if sys.stdout.isatty() else 140).print(plain_table(result, "noise levels"))
    elif stage == "evaluate":
        if result:
            Console(width=None if sys.stdout.isatty() else 140).print(metrics_table(result, str(folder.metrics)))
        screen.print(f"images: [bold]{folder.evaluate}[/], side by side: [bold]{folder.grid}[/]")
        if folder.guidance.with_suffix(".md").is_file():
            screen.print(f"against the guidance scale: [bold]{folder.guidance}.md[/], [bold]{folder.guidance}.png[/]")
    else:
        _print_status({stage: result})


def _print_ablation(folder: "RunFolder", rows: Any) -> None:
    from lcm_distill.report.ablation import headline_text

    print(folder.ablation.with_suffix(".md").read_text())
    screen.print(f"chart and rows: [bold]{folder.ablation}.png[/], [bold]{folder.ablation}.parquet[/]")
    print(headline_text(rows))


def _print_ablation_plan(plan: dict[str, Any]) -> None:
    from lcm_distill.report.tables import plain_table

    rows = [
        {
            "step": step["step"],
            "beside": step["beside"],
            "changes": "\n".join(step["changes"]),
            **{f"seed {seed}": f"{done}/{step['of_steps']}" for seed, done in step["trained_steps"].items()},
        }
        for step in plan["steps"]
    ]
    Console(width=None if sys.stdout.isatty() else 140).print(plain_table(rows))
    _print_status({"ablate": {name: figure for name, figure in plan.items() if name != "steps"}})


def _print_status(result: dict[str, Any]) -> None:
    from lcm_distill.report.tables import plain_table

    rows = [
        {"what": stage if not name else f"{stage} {name}", "figure": _listed(figure)}
        for stage, figures in result.items()
        for name, figure in (figures.items() if isinstance(figures, dict) else [("", figures)])
    ]
    Console().print(plain_table(rows))


def _listed(figure: Any) -> Any:
    return "\n".join(map(str, figure)) if isinstance(figure, list) else figure


def _print_verification(result: dict[str, Any]) -> None:
    from lcm_distill.report.tables import plain_table

    if result["damage"]:
        Console(width=None if sys.stdout.isatty() else 140).print(plain_table(result["damage"], "broken"))
    _print_status({"cache": {name: figure for name, figure in result.items() if name != "damage"}})


def _stored(run: Path) -> tuple["Config", "RunFolder"]:
    from lcm_distill.config import load_file
    from lcm_distill.pipeline.run_folder import RunFolder

    folder = RunFolder(run)
    folder.require(folder.config, "give the folder of a run")
    return load_file(folder.config), folder


def _print(result: Any, as_json: bool, render: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps(result, default=str))
    else:
        render()
