"""Examples of every command, as its help shows them."""

EXAMPLES = {
    "run": [
        "lcm run --preset shapes",
        "lcm run --preset shapes --run runs/more --set distill.steps=600 --dry-run",
    ],
    "precompute": [
        "lcm precompute --preset microdit_xl_512 --set data.root=/data/JourneyDB",
        "lcm precompute --run runs/xl --executor processes --workers 8",
    ],
    "distill": [
        "lcm distill --run runs/shapes",
        "lcm distill --run runs/scm --cache runs/shapes",
        "lcm distill --run runs/shapes --watch 50",
    ],
    "evaluate": [
        "lcm evaluate --run runs/shapes",
        "lcm evaluate --run runs/shapes --steps 1,2,4 --guidance 1,2,3",
    ],
    "schedule": ["lcm schedule --run runs/shapes"],
    "pretrain": ["lcm pretrain --preset shapes --run runs/teacher"],
    "ablate": ["lcm ablate --preset shapes --only original,default --seeds 1"],
    "sample": [
        'lcm sample "a green ring" --steps 1,4 --seed 7',
        'lcm sample "a green ring" "a red heart" --out images --format png',
        "lcm sample --prompts held-out --count 8 --run runs/shapes --steps 4",
    ],
    "compare-samplers": ['lcm compare-samplers "a green ring" --steps 4 --solver euler'],
    "serve": ["lcm serve", "lcm serve --run runs/shapes --port 8000"],
    "export": [
        "lcm export --run runs/shapes --format pt --out student.pt",
        "lcm export --run runs/shapes --format diffusers --with-encoders --out student",
        "lcm export --run runs/shapes --format onnx --out student-onnx",
    ],
    "status": ["lcm status --run runs/shapes", "lcm status --run runs/shapes --json"],
    "inspect": [
        'lcm inspect "SELECT step, loss FROM events ORDER BY step" --run runs/shapes',
        'lcm inspect "FROM metrics" --run runs/shapes --csv',
    ],
    "compare": ["lcm compare runs/shapes runs/scm --out compare"],
    "report": ["lcm report --run runs/shapes"],
    "verify": ["lcm verify --run runs/shapes", "lcm verify --run runs/shapes --repair"],
    "doctor": ["lcm doctor", "lcm doctor --preset microdit_xl_512 --set data.root=/data/JourneyDB"],
    "fetch": ["lcm fetch --preset microdit_xl_512 --to weights"],
    "config presets": ["lcm config presets"],
    "config show": ["lcm config show --preset shapes", "lcm config show --run runs/shapes --json"],
    "config diff": ["lcm config diff runs/shapes", "lcm config diff runs/shapes runs/scm"],
    "cache compact": ["lcm cache compact --run runs/shapes"],
    "cache pull": ["lcm cache pull --run runs/microdit_xl_512"],
}
"""Command lines by the command's name."""


def epilog(command: str) -> str:
    """The end of a command's help: its examples, a line each; for a group of commands those of all of them.

    Raises:
        KeyError: there is none.
    """
    names = [name for name in EXAMPLES if name.startswith(f"{command} ")] or [command]
    return "\n\n".join(["Examples:", *(f"  {line}" for name in names for line in EXAMPLES[name])])
