"""One job per GPU of a machine: each takes the first that no other job holds, and waits where all are held.

Locks are those of the operating system, which end with the process. Within a SLURM job the cluster has shared GPUs out
already; the lock then is free at once.
"""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from goldilocks_zone.storage import files

POLL_SECONDS = 1.0
# Open for as long as the process lives: closing one would release the device.
_held: list[int] = []


def claim(names: Sequence[str], folder: str | Path | None = None) -> int:
    """The number of a device that is this process's own from now on, of devices called `names` on this machine.

    `folder` is where the locks lie, by default the system's for temporary files, so that all checkouts of a user know
    of each other. Raises ValueError if there is no device.
    """
    if not names:
        raise ValueError("device cuda: this machine has no GPU that CUDA can see; set execution.device to auto or cpu")
    place, said = Path(folder or tempfile.gettempdir()), False
    while True:
        for number, name in enumerate(names):
            if _is_free(place / f"goldilocks-{os.getuid()}-gpu-{name}.lock"):
                logging.info("device %d of %d: %s", number, len(names), name)
                return number
        if not said:
            logging.info("waits for a GPU: all %d are held by other jobs", len(names))
            said = True
        time.sleep(POLL_SECONDS)


def _is_free(path: Path) -> bool:
    """Take the lock at `path` if nobody has it."""
    with files.writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    _held.append(handle)
    return True
