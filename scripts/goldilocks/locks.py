"""One run at a time in a checkout: a living run is named, the lock that a dead one left behind is removed.

Snakemake's own locks are files that outlive a killed run. Every run therefore also holds a lock of the operating
system, which ends with the process: whoever gets it knows that no other run of this machine is alive.
"""

import fcntl
import os
import socket
from pathlib import Path

from goldilocks import files

LOCK = ".goldilocks.lock"
# Open for as long as the process lives: closing it would release the lock.
_held: list[int] = []


class Busy(ValueError):
    """Another run is at work; the message is one sentence."""


def enter(folder: str | Path = ".") -> str | None:
    """Be the one run at work in a checkout; returns a sentence for the user where there is something to say.

    Removes Snakemake's locks if the run that held them was one of this machine, and is gone. Raises Busy if another
    run is alive. Where the file system has no locks, nothing is known of others and nothing is removed.
    """
    folder = Path(folder)
    with files.writing(folder / LOCK):
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = _holder(handle)
        os.close(handle)
        raise Busy(
            f"another run is at work in this folder ({other}): wait until it ends, or stop it, and run again"
        ) from None
    except OSError:
        os.close(handle)
        return None
    _held.append(handle)
    stale, host = list((folder / ".snakemake/locks").glob("*.lock")), socket.gethostname()
    if stale and not _holder(handle).endswith(f" on {host}"):
        # Its machine may lock files of its own disks alone.
        return f"Snakemake's lock is that of {_holder(handle)}: if that run is gone, remove it with snakemake --unlock"
    for path in stale:
        path.unlink(missing_ok=True)
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {host}".encode(), 0)
    return "removed the lock of an earlier run, which is gone; its work continues" if stale else None


def _holder(handle: int) -> str:
    return os.pread(handle, 200, 0).decode(errors="replace") or "an unknown process"
