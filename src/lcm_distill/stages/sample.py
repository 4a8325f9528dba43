"""A few pictures of given captions, in one labelled grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lcm_distill.api import open_model
from lcm_distill.pipeline.atomic import commit_file
from lcm_distill.report.grid import labelled_grid


def sample(
    where: str, prompts: Sequence[str], steps: Sequence[int], guidance: float, seed: int, out: Path
) -> dict[str, Any]:
    """Draw every caption with the student of `where`, once for each number of steps, and write a grid to `out`."""
    model = open_model(where, "student")
    columns = [
        (f"student, {count} step{'s' if count > 1 else ''}", _pixels(model.generate(prompts, count, guidance, seed)))
        for count in steps
    ]
    grid = labelled_grid(columns, prompts, cell=max(128, columns[0][1].shape[1]))
    commit_file(out, lambda path: grid.save(path, format="PNG"))
    return {"picture": str(out), "prompts": list(prompts), "steps": list(steps), "guidance": guidance, "seed": seed}


def _pixels(images: Any) -> np.ndarray:
    return (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
