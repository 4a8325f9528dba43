"""What a checkpoint says of itself: the step that it was made after, and the identity of its training."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lcm_distill.core.io_errors import require_reachable
from lcm_distill.core.json import parse_json
from lcm_distill.core.regular_files import read_regular

ABOUT = "about.json"


@dataclass(frozen=True)
class About:
    """A checkpoint's step, and the fingerprint of its training.

    Attributes:
        early: whether a signal, and not the step, was the reason to save it.
    """

    step: int
    fingerprint: str
    early: bool = False


def write_about(folder: Path, about: About) -> None:
    """Write the file `ABOUT`."""
    (folder / ABOUT).write_text(json.dumps(asdict(about)))


def read_about(folder: Path) -> About | None:
    """What the checkpoint in a folder says; None if the file is missing or damaged.

    Raises:
        OSError: the device or a permission keeps it from being read.
    """
    try:
        stored = parse_json(read_regular(folder / ABOUT))
        step, fingerprint, early = stored["step"], stored["fingerprint"], stored.get("early", False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        require_reachable(error, str(folder / ABOUT))
        return None
    is_sound = type(step) is int and isinstance(fingerprint, str) and isinstance(early, bool)
    return About(step, fingerprint, early) if is_sound else None
