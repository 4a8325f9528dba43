"""Who owns a stage of a folder, as the file of its lock says."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from secrets import token_hex

from lcm_distill.core.child_process import is_running
from lcm_distill.core.errors import UserError

NAMING_SECONDS = 1.0
"""How long an owner may take from its lock to its name."""


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
        beat: a counter that it raises while it is alive.
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


def read_owner(path: Path) -> Owner | None:
    """What a lock's file says; None if it says nothing, or is being written."""
    try:
        return Owner(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


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
