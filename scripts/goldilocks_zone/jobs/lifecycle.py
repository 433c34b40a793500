"""Jobs that are asked to stop (by SLURM when their time is over, by scancel, by kill) and leave a checkpoint first."""

import signal
import threading

# Seconds that a job may take for it: SLURM's own KillWait is 30.
GRACE = 20.0
_asked = threading.Event()


def listen() -> None:
    """From now on SIGTERM and SIGUSR1 ask, and no longer end the process at once."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: _asked.set())


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _asked.is_set()
