"""One run at a time in a checkout, by a lock of the operating system, which is released when its process ends.

Snakemake's own locks outlive a killed run, and profiles turn them off (nolock). filelock is not in the standard
library, which is all that `make clean` has, and stores no holder's name for other machines and file systems without
locks.
"""

import atexit
import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from goldilocks_zone.storage import files

LOCK = ".goldilocks.lock"
ATTEMPTS = 5
# Open as long as the process lives, because closing it releases the lock.
_held: list[int] = []


class Busy(ValueError):
    """Another run is at work."""


def enter(folder: str | Path = ".") -> None:
    """Acquire the run lock of a checkout until this process ends.

    Raises Busy if another run is alive, or if a run on another machine, whose locks may be invisible here, has not
    erased its name. On file systems without locks, a run of this machine is identified by its process number.
    """
    path = Path(folder, LOCK)
    with files.writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _refuse_others(handle, path)
    except Busy:
        os.close(handle)
        raise
    _held.append(handle)
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    atexit.register(_leave, handle, os.getpid())


def is_held(folder: str | Path = ".") -> bool:
    """Whether a run of this machine is at work in a checkout; False on file systems without locks."""
    with suppress(OSError), open(Path(folder, LOCK), "rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _refuse_others(handle: int, path: Path) -> None:
    holder = os.pread(handle, 200, 0).decode(errors="replace")
    process, _, host = holder.removeprefix("process ").partition(" on ")
    locked = True
    try:
        _lock(handle)
    except BlockingIOError:
        at_work = f"another run is at work in this folder ({holder or 'an unknown process'})"
        raise Busy(f"{at_work}: wait until it ends, or stop it, and run again") from None
    except OSError:
        locked = False
    if host and (host != socket.gethostname() or (not locked and process.isdigit() and files.is_alive(int(process)))):
        advice = "wait until that run ends, or, if it is gone, delete this file, and run again"
        raise Busy(f"{path} is held by {holder}: {advice}")


def _lock(handle: int) -> None:
    """Lock a file exclusively, with a few attempts because is_held locks it for a moment."""
    for _ in range(ATTEMPTS):
        with suppress(BlockingIOError):
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _leave(handle: int, process: int) -> None:
    """Erase the holder's name, which only a killed process leaves behind."""
    if os.getpid() == process:
        os.ftruncate(handle, 0)
