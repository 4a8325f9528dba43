"""Who owns a stage of a folder, as the file of its lock says."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any, cast

from lcm_distill.core.child_process import is_running
from lcm_distill.core.errors import UserError
from lcm_distill.core.json import parse_json
from lcm_distill.core.regular_files import read_regular

NAMING_SECONDS = 1.0
"""How long an owner may take from its lock to its name."""
MOST_BYTES = 65_536
"""The largest file of a lock that is read."""


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z")


@cache
def this_machine() -> str:
    """Host name, and what differs between two starts of one machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}"


@dataclass(frozen=True)
class Owner:
    """Who owns a stage.

    Attributes:
        command: what is running.
        launch: which ranks it leads; empty for none.
        since: when it began, for people to read.
        beat: a counter that it raises while it is alive; below 0 it has none.
        ended: whether it has ended; only the owner of a launch, whose ranks may look later, leaves its file behind.
    """

    command: str
    launch: str = ""
    host: str = field(default_factory=socket.gethostname)
    machine: str = field(default_factory=this_machine)
    process: int = field(default_factory=os.getpid)
    since: str = field(default_factory=_now)
    token: str = field(default_factory=token_hex)
    beat: int = 0
    ended: bool = False

    def __str__(self) -> str:
        return f"`lcm {self.command}` (process {self.process} on {self.host}, since {self.since})"

    def to_json(self) -> bytes:
        """The content of a lock's file."""
        return json.dumps(asdict(self)).encode()

    @property
    def is_gone(self) -> bool:
        """Whether it was a process of this machine that has ended."""
        return self.machine == this_machine() and not is_running(self.process)


NOBODY = Owner("of another version", host="?", machine="", process=0, since="?", token="", beat=-1)
"""What stands for the keys that a lock's file lacks: none of them is a sign of life."""


def read_owner(path: Path) -> Owner | None:
    """What a lock's file says; None if it says nothing, or is being written.

    Keys of other versions are ignored; for those that it lacks, or that hold something else, `NOBODY` stands.
    """
    try:
        stored = parse_json(read_regular(path, MOST_BYTES))
    except (OSError, ValueError):
        return None
    if not isinstance(stored, dict):
        return None
    found, absent = cast(dict[str, Any], stored), asdict(NOBODY)
    return Owner(**{name: value if type(found.get(name)) is not type(value) else found[name]
                    for name, value in absent.items()})  # fmt: skip


def holder(path: Path) -> Owner | None:
    """The owner that holds a lock, which may not have written its name yet; None if it does not."""
    ends = time.monotonic() + NAMING_SECONDS
    while (found := read_owner(path)) is None or found.is_gone:
        if time.monotonic() > ends:
            return None
        time.sleep(0.02)
    return found


def refusal(path: Path, owner: Owner | None, remedy: str) -> UserError:
    """The error that a stage has another owner.

    Args:
        path: the lock's file.
        remedy: what to do besides waiting.
    """
    named = owner or "another process"
    return UserError(
        f"{path.parent.parent}: its stage {path.name} belongs to {named}: wait until it has ended, {remedy}"
    )
