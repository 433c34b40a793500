"""Runs that share a checkout: a lock that a dead run left behind is removed, a living run is named.

Snakemake's own locks are files that outlive a killed run. Every run therefore also holds a lock of the operating
system, which ends with the process: whoever gets it alone knows that no other run is alive.
"""

import fcntl
import os
import socket
from pathlib import Path

from goldilocks import files

# Open for as long as the process lives: closing it would release the lock.
_held: list[int] = []


def join(folder: str | Path = ".snakemake") -> tuple[bool, str | None]:
    """Enter the runs at work in a checkout; returns whether this one is alone, and what to tell the user if anything.

    Alone, removes the locks in `folder`, Snakemake's, that a dead run left behind. Where the file system has no
    locks, nothing is known of others: nothing is removed and nothing is said.
    """
    folder = Path(folder)
    with files.writing(folder / "goldilocks.lock"):
        handle = os.open(folder / "goldilocks.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except BlockingIOError:
        alone = False
    except OSError:
        os.close(handle)
        return True, None
    sentence = _remove_stale_locks(folder) if alone else _describe_other(handle)
    fcntl.flock(handle, fcntl.LOCK_SH)
    _held.append(handle)
    if alone:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return alone, sentence


def _remove_stale_locks(folder: Path) -> str | None:
    stale = list((folder / "locks").glob("*.lock"))
    for path in stale:
        path.unlink(missing_ok=True)
    return "removed the lock of an earlier run, which is gone; its work continues" if stale else None


def _describe_other(handle: int) -> str:
    other = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
    return f"another run is at work in this folder ({other}): wait until it ends, or stop it, and run again"
