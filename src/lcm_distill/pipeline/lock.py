"""One owner at a time for each stage of a folder.

An owner holds the kernel's lock on `locks/<stage>`, which ends with its process, however that ends. The file says who
it is, and holds a counter that it raises every few seconds. Where the last owner was another machine's, whose locks a
file system may not know of, and where a file system has no locks, an owner is alive if its counter changes between two
looks. No clock is compared with another.
"""

import errno
import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from lcm_distill.core.errors import UserError, WorkError
from lcm_distill.core.io_errors import naming_file
from lcm_distill.core.regular_files import open_to_write
from lcm_distill.pipeline.lock_owner import Owner, holder, read_owner, refusal, this_machine

FOLDER = "locks"
BEAT_SECONDS = 5.0
WATCH_SECONDS = 20.0
"""An owner whose counter stands still for this long is dead."""
ATTEMPTS = 100
"""At making a folder that others remove. What is in its place for good is an error after that."""
SETTLE_SECONDS = 2.0
"""Where there are no locks, the last of those who claim a stage within this time owns it."""
PATIENCE_SECONDS = 180.0
"""How long the other ranks of a launch wait for the first one to own its stages."""
UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems without locks answer."""
ROOM = 1024
"""Bytes of a lock's file: it is written in place, in one call."""

log = logging.getLogger(__name__)


@contextmanager
def owned(folder: Path, stages: Sequence[str], command: str, remedy: str, launch: str = "") -> Generator[None]:
    """Own stages of a folder while the block runs; the folder is made, and removed again if nothing was put there.

    Args:
        stages: always in the same order, so that of any number of commands that want the same, one gets it.
        command: what is running; others are told.
        remedy: what to do where a stage has another owner, after "wait until it has ended".
        launch: which ranks this process leads.

    Raises:
        UserError: a stage has another owner; nothing was changed.
    """
    owner = Owner(command, launch)
    made = _make(folder / FOLDER)
    with ExitStack() as held:
        held.callback(_remove_empty, made)
        locks: list[_Lock] = []
        for stage in stages:
            lock = _Lock(folder / FOLDER / stage, owner, remedy)
            lock.take()
            held.callback(lock.release)
            locks.append(lock)
        _remove_dead(folder / FOLDER)
        with _beating(locks):
            yield


def await_owner(folder: Path, stage: str, launch: str, remedy: str, patience: float = PATIENCE_SECONDS) -> None:
    """Return once the first rank of `launch` owns a stage, or has owned it last.

    Raises:
        UserError: the owner is another one, which is alive.
        WorkError: the first rank owns it not in time.
    """
    path, began, foreign = folder / FOLDER / stage, time.monotonic(), None
    while (owner := read_owner(path)) is None or owner.launch != launch:
        if owner and foreign and owner.token == foreign.token and owner.beat != foreign.beat:
            raise refusal(path, owner, remedy)
        if owner and (foreign is None or owner.token != foreign.token):
            foreign = owner
        if time.monotonic() - began > patience:
            raise WorkError(
                f"the first rank has not begun `{stage}` in {folder} within {patience:.0f} s: start it again"
            )
        time.sleep(min(0.2, patience))


class _Lock:
    """The lock of one stage."""

    def __init__(self, path: Path, owner: Owner, remedy: str) -> None:
        self.path, self.owner, self.remedy = path, owner, remedy
        self._descriptor, self._supported = -1, True

    def take(self) -> None:
        """Own the stage.

        Raises:
            UserError: it has another owner.
        """
        self._descriptor, self._supported = self._locked()
        try:
            found = read_owner(self.path)
            if found and self._may_live(found) and _is_alive(self.path, found):
                raise refusal(self.path, found, self.remedy)
            self.write()
            if not self._supported:
                time.sleep(SETTLE_SECONDS)
                self._require_own()
        except BaseException:
            os.close(self._descriptor)
            raise

    def write(self) -> None:
        """Write who owns the stage."""
        with naming_file(self.path):
            written = os.pwrite(self._descriptor, self.owner.to_json().ljust(ROOM), 0)
            os.ftruncate(self._descriptor, written)  # of what stood there before
            os.fsync(self._descriptor)

    def beat(self) -> None:
        """Raise the counter.

        Raises:
            UserError: another process has taken this one for dead.
        """
        if not self._supported:
            self._require_own()
        self.owner = replace(self.owner, beat=self.owner.beat + 1)
        self.write()

    def release(self) -> None:
        """End ownership."""
        with suppress(OSError):
            if self.owner.launch:
                self.owner = replace(self.owner, ended=True)
                self.write()
            elif self._supported or (found := read_owner(self.path)) is None or found.token == self.owner.token:
                self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _locked(self) -> tuple[int, bool]:
        """An open descriptor of the file that is at the path, and whether it is locked: False where nothing can be."""
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                if self.path.parent.exists():
                    raise
                continue  # an owner that has ended removed the folder after mkdir had found it
            if self.path.exists() and not self.path.is_file():
                raise UserError(f"{self.path} is no regular file: delete it")
            try:
                descriptor = open_to_write(self.path)
            except FileNotFoundError:
                continue  # an owner that has ended removed the folder
            try:
                supported = self._lock(descriptor)
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    return descriptor, supported
            except FileNotFoundError:
                pass  # an owner that has ended removed the file
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _lock(self, descriptor: int) -> bool:
        for _ in range(2):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if found := holder(self.path):
                    raise refusal(self.path, found, self.remedy) from None
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                log.warning("%s: %s: owners are told by their counters", self.path, error.strerror)
                return False
            else:
                return True
        raise refusal(self.path, None, self.remedy)

    def remove(self) -> None:
        """Remove the file of an owner that is gone, unless another process has the lock."""
        with suppress(UserError, OSError):
            descriptor, supported = self._locked()
            if supported:
                self.path.unlink(missing_ok=True)
            os.close(descriptor)

    def _may_live(self, found: Owner) -> bool:
        """Whether the last owner may be alive although the lock is free."""
        if found.ended or found.token == self.owner.token:
            return False
        if found.beat < 0:
            log.warning("%s has no counter, and nobody holds it: it is taken over", self.path)
            return False
        return not found.is_gone if not self._supported else found.machine != this_machine()

    def _require_own(self) -> None:
        found = read_owner(self.path)
        if found and found.token != self.owner.token:
            raise refusal(self.path, found, self.remedy)


@contextmanager
def _beating(locks: Sequence[_Lock]) -> Generator[None]:
    """Raise the counters while the block runs. A process that has lost a stage ends: it has another owner by now."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            for lock in locks:
                try:
                    lock.beat()
                except UserError as error:
                    log.critical("this process was taken for dead: %s", error)
                    os.kill(os.getpid(), signal.SIGKILL)  # nothing may be saved any more
                except OSError as error:
                    log.warning("no heartbeat: %s", error)

    thread = threading.Thread(target=beat, name="owner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _is_alive(path: Path, found: Owner) -> bool:
    """Whether an owner's counter changes while it is watched."""
    log.warning("%s may be alive: watching for up to %.0f s", found, WATCH_SECONDS)
    ends = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < ends:
        time.sleep(min(1.0, WATCH_SECONDS / 4))
        now = read_owner(path)
        if now is not None and (now.token, now.beat) != (found.token, found.beat):
            return not now.ended
    return False


def _remove_dead(folder: Path) -> None:
    """Remove what killed owners of other stages left."""
    for path in sorted(folder.iterdir()):
        found = read_owner(path)
        if found is not None and found.is_gone:
            _Lock(path, found, "").remove()


def _make(folder: Path) -> list[Path]:
    """Make a folder; returns those that were made, the innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    for _ in range(ATTEMPTS):
        with suppress(FileExistsError, FileNotFoundError):  # an owner that ends removes it, or its parent, in between
            folder.mkdir(parents=True, exist_ok=True)
            return made or [folder]
    folder.mkdir(parents=True, exist_ok=True)
    return made or [folder]


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
