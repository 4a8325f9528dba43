"""Other processes of this machine: whether one runs, and how a spawned one behaves towards its parent."""

import multiprocessing
import os
import signal
import threading


def is_running(process: int) -> bool:
    """Whether there is a process with this id."""
    if not 0 < process < 2**31:
        return False  # the system takes others for groups, or not at all
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def follow_parent() -> None:
    """Called in a child process: ignore Ctrl-C, which the parent handles, and end when the parent ends or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="parent", daemon=True).start()
