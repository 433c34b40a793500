"""Locks that allow one run at a time in a checkout, and one job at a time on each GPU of a machine.

A lock is released when its process ends. Snakemake's own locks outlive a killed run, and profiles turn them off
(nolock). The lock of runs does not use filelock, because `make clean` has only the standard library, and because
filelock does not store the holder's name, which is needed on other machines and on file systems without locks. Under
SLURM, each job has GPUs of its own, so that their locks are free.
"""

import atexit
import fcntl
import logging
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from goldilocks_zone.storage import files

LOCK = ".goldilocks.lock"
ATTEMPTS = 5
POLL_SECONDS = 1.0
# File handles and locks, kept while the process lives: closing or deleting one would release it.
_held: list[object] = []


class Busy(ValueError):
    """Another run is active in this checkout."""


def enter_run(folder: str | Path = ".") -> None:
    """Acquire the run lock of the checkout in `folder`, and hold it until this process ends.

    Raises Busy if another run is alive, or if the lock file holds the name of a run on another machine, whose locks may
    be invisible here. On file systems without locks, a run of this machine is alive if its process ID is in use.
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


def run_is_held(folder: str | Path = ".") -> bool:
    """Whether a run of this machine is active in a checkout; False on file systems without locks."""
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
    """Lock the open file `handle` exclusively. Raises BlockingIOError if all of several attempts fail.

    Several attempts are needed because `run_is_held` locks the file for a moment.
    """
    for _ in range(ATTEMPTS):
        with suppress(BlockingIOError):
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _leave(handle: int, process: int) -> None:
    """At exit, erase the name of the process that holds the run lock from the open lock file `handle`.

    `process` is the ID of this process. In its forks, nothing is erased. The name thus stays in the file only if the
    process is killed.
    """
    if os.getpid() == process:
        os.ftruncate(handle, 0)


def claim_gpu(names: Sequence[str], folder: str | Path | None = None) -> int:
    """Lock the first free GPU among this machine's GPUs `names` for this process, and return its index in `names`.

    Waits while all GPUs are locked. Lock files are in `folder`, by default in the folder for temporary files, which all
    checkouts share. Raises ValueError if `names` is empty.
    """
    import filelock

    if not names:
        raise ValueError("device cuda: this machine has no GPU that CUDA can see; set execution.device to auto or cpu")
    place, said = Path(folder or tempfile.gettempdir()), False
    while True:
        for number, name in enumerate(names):
            lock = filelock.FileLock(place / f"goldilocks-{os.getuid()}-gpu-{name}.lock", mode=0o600)
            with files.writing(lock.lock_file), suppress(filelock.Timeout):
                lock.acquire(blocking=False)
                _held.append(lock)
                logging.info("device %d of %d: %s", number, len(names), name)
                return number
        if not said:
            logging.info("waits for a GPU: all %d are held by other jobs", len(names))
            said = True
        time.sleep(POLL_SECONDS)
