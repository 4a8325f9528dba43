"""`lcm ablate`: the chain of an ablation, planned or trained and measured."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lcm_distill.commands.errors import one_line_errors
from lcm_distill.commands.ownership import owning
from lcm_distill.commands.printing import announce, show, show_figures, show_rows, show_written, write
from lcm_distill.commands.run_choice import Choice
from lcm_distill.commands.work import How, leads, logged, refuse_random_weights, show_progress

if TYPE_CHECKING:
    from lcm_distill.pipeline.run_folder import RunFolder

OWNED = ("precompute", "evaluate", "ablate")
"""What it owns of the run: the trainings have run folders of their own, below it."""


def ablate(choice: Choice, only: Sequence[str], seeds: int, how: How) -> None:
    """Train and measure the named steps of a chain, or all; or print the plan."""
    with one_line_errors():
        from lcm_distill.config.ablation import load_ablation
        from lcm_distill.report.ablation import headline
        from lcm_distill.stages import ablate as stage
        from lcm_distill.stages import distill
        from lcm_distill.stages.queries import inspect

        named = choice.preset or choice.file
        ablation = load_ablation(choice.given().preset if named else choice.load()[0].preset)
        steps = ablation.select(only)
        if how.dry_run:
            config, folder = choice.load(settings=ablation.settings)
            if not how.allow_random_weights:
                refuse_random_weights(config, [distill.STAGE])
            plan = stage.plan_ablation(config, folder, steps, seeds)
            show(plan, how.as_json, lambda: _show_plan(plan))
            return
        with owning(choice, "ablate", OWNED, settings=ablation.settings) as (config, folder):
            if not how.allow_random_weights:
                refuse_random_weights(config, [distill.STAGE])
            if leads():
                announce(config)
            executor = how.open_executor(config.device)
            stage.find_requirements(config, folder, stage.trials(config, folder, steps, seeds))
            with folder.opened(config) if leads() else folder.joined(), logged(folder):
                show_progress(stage.ablate(config, folder, steps, seeds, executor), silent=not leads())
        if not leads():
            return
        rows = inspect(config, folder, "FROM ablation")
        show({"figures": headline(rows), "rows": rows}, how.as_json, lambda: _show_result(folder, rows))


def _show_plan(plan: dict[str, Any]) -> None:
    rows = [
        {
            "step": step["step"],
            "compared with": step["beside"],
            "changes": "\n".join(step["changes"]),
            **{f"seed {seed}": f"{done}/{step['of_steps']}" for seed, done in step["trained_steps"].items()},
        }
        for step in plan["steps"]
    ]
    show_rows(rows)
    show_figures({name: value for name, value in plan.items() if name != "steps"})


def _show_result(folder: "RunFolder", rows: Any) -> None:
    from lcm_distill.report.ablation import headline_text

    write(folder.ablation.with_suffix(".md").read_text())
    show_written(folder.ablation)
    write(headline_text(rows))
