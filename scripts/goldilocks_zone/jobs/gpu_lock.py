"""One job per GPU of a machine: a job locks the first free GPU and waits while all are locked.

The operating system releases a lock when its process ends. SLURM gives each job its own GPUs, whose locks are free.
"""

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import filelock

from goldilocks_zone.storage import files

POLL_SECONDS = 1.0
# A lock is released when its last reference is deleted.
_held: list[filelock.BaseFileLock] = []


def claim(names: Sequence[str], folder: str | Path | None = None) -> int:
    """Lock one of this machine's devices `names` for this process and return its number.

    `folder` holds the locks: by default that for temporary files, which all checkouts share. Raises ValueError if there
    is no device.
    """
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
