"""`lcm cache`: maintenance of a run's cache."""

import typer

from lcm_distill.commands.errors import one_line_errors
from lcm_distill.commands.examples import epilog
from lcm_distill.commands.options import ExistingRun, Json
from lcm_distill.commands.ownership import owning
from lcm_distill.commands.printing import show, show_figures
from lcm_distill.commands.run_choice import Choice
from lcm_distill.commands.work import show_progress

app = typer.Typer(help="Cache maintenance.", no_args_is_help=True, epilog=epilog("cache"))


@app.command(epilog=epilog("cache compact"))
def compact(run: ExistingRun, json: Json = False) -> None:
    """Merge the manifest's parts into few files, for faster queries."""
    with one_line_errors():
        from lcm_distill.data.cache.cache import Cache
        from lcm_distill.data.cache.shared_cache import require_own
        from lcm_distill.pipeline.compaction import compact as merge

        config, folder = Choice(run=run).load(begins=False)
        cache = Cache.local(config, folder)
        require_own(config.cache, folder, "cache compact")
        folder.require(folder.cache / "manifest", cache.remedy)
        manifest = cache.manifest
        show_progress(merge(manifest))
        result = {"tasks": len(manifest.task_names()), "files": len(manifest.merged_files())}
        show(result, json, lambda: show_figures({"manifest": result}))


@app.command(epilog=epilog("cache pull"))
def pull(run: ExistingRun, json: Json = False) -> None:
    """Copy a cache from its object store into the run folder, where training reads it."""
    with one_line_errors():
        from lcm_distill.data.cache.cache import Cache
        from lcm_distill.pipeline.atomic_writes import remove_orphans
        from lcm_distill.stages.pull import pull as copy

        with owning(Choice(run=run), "cache pull", ["precompute"], begins=False) as (config, folder):
            remove_orphans(folder.root)
            show_progress(copy(config, folder))
        result = {"tasks": len(Cache.local(config, folder).manifest.task_names()), "cache": str(folder.cache)}
        show(result, json, lambda: show_figures({"cache": result}))
