"""One job per GPU of a machine: each takes the first GPU that no other job holds, and waits while all are held.

The operating system releases a lock when its process ends. A SLURM job has GPUs of its own, so that its locks are free.
"""

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import filelock

from goldilocks_zone.storage import files

POLL_SECONDS = 1.0
# References to locks release them when they go.
_held: list[filelock.BaseFileLock] = []


def claim(names: Sequence[str], folder: str | Path | None = None) -> int:
    """Lock one of this machine's devices, called `names`, for this process; returns its number.

    `folder` holds the locks, by default the system's for temporary files, which all checkouts of a user share.
    Raises ValueError if there is no device.
    """
    if not names:
        raise ValueError("device cuda: this machine has no GPU that CUDA can see; set execution.device to auto or cpu")
    place, said = Path(folder or tempfile.gettempdir()), False
    while True:
        for number, name in enumerate(names):
            if _take(place / f"goldilocks-{os.getuid()}-gpu-{name}.lock"):
                logging.info("device %d of %d: %s", number, len(names), name)
                return number
        if not said:
            logging.info("waits for a GPU: all %d are held by other jobs", len(names))
            said = True
        time.sleep(POLL_SECONDS)


def _take(path: Path) -> bool:
    """Take the lock at `path` if it is free."""
    lock = filelock.FileLock(path, mode=0o600)
    with files.writing(path):
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
    _held.append(lock)
    return True
