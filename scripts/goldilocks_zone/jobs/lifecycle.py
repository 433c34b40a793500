"""Start and end of jobs: isolation from the home folder, exit when the run has died, and requests to stop."""

import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from goldilocks_zone.storage import files

GRACE = 20.0  # seconds allowed for the checkpoint; SLURM's own KillWait is 30
CHECK_SECONDS = 1.0
# Environment variables with the process ID and host of two Snakemake processes. The first process of the run identifies
# the run. The other one started the job; on a node of a cluster, it is a different process.
RUN_VARIABLE, STARTER_VARIABLE = "GOLDILOCKS_RUNNER", "GOLDILOCKS_STARTER"
# Environment variables that make glibc keep freed memory in the process; other C libraries ignore them.
KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
# Snakemake starts jobs by a shell and does not quote the path of the interpreter.
_READ_BY_SHELLS = re.compile(r"""[\s'"&$();{}\\*`<>|?\[\]]""")
_asked = threading.Event()


def isolate(checkout: Path) -> None:
    """Set environment variables that make this process and its jobs independent of the home folder.

    Raises ValueError like `refuse_path`.
    """
    refuse_path(checkout)
    # Exclude the user's packages and matplotlib's settings and backend; put matplotlib's font cache where it can write.
    cache = str(Path(".snakemake/matplotlib").absolute())
    os.environ |= {"PYTHONNOUSERSITE": "1", "MPLBACKEND": "Agg", "MPLCONFIGDIR": cache}


def refuse_path(checkout: Path) -> None:
    """Raise ValueError if the path of `checkout` or of this Python has a character that is special to shells."""
    for path in (checkout, Path(sys.executable)):
        if found := _READ_BY_SHELLS.search(str(path)):
            advice = "move it to a path without spaces, quotes, brackets and signs such as & and $, and run again"
            raise ValueError(f"{path} has {found[0]!r} in its path, which shells read in their own way: {advice}")


def keep_memory() -> None:
    """Make jobs reuse the memory of freed arrays, by the environment variables KEPT_MEMORY; the user's values stay.

    Memory that returns to the system must be cleared again, which takes up to a third of a job's processor time.
    """
    for name, value in KEPT_MEMORY.items():
        os.environ.setdefault(name, value)


def name_to_jobs(first: bool) -> None:
    """Store the ID and host of this Snakemake process in an environment variable that its jobs inherit.

    If this is the `first` process of the run, they are also stored as the identity of the run, in a second variable.
    """
    for variable in (STARTER_VARIABLE, *([RUN_VARIABLE] if first else [])):
        os.environ[variable] = f"{os.getpid()} {socket.gethostname()}"


def run() -> str:
    """Identity of the run that started this job: ID and host of its first Snakemake process; empty outside a run."""
    return os.environ.get(RUN_VARIABLE, "")


def listen() -> None:
    """From now on, only record SIGTERM and SIGUSR1 as requests to stop, which `asked` reports.

    Without this call, these signals end the process at once.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: _asked.set())


def asked() -> bool:
    """Whether SIGTERM or SIGUSR1 has asked this process to stop since `listen` was called."""
    return _asked.is_set()


def end_with_run() -> None:
    """Start a thread that ends this process, with status 1, soon after its parent or Snakemake has died.

    The parent may be a shell. Snakemake processes are watched if they run on this machine. If this process was asked to
    stop, it gets GRACE seconds for its checkpoint.
    """
    parent, snakemakes = os.getppid(), []
    for variable in (RUN_VARIABLE, STARTER_VARIABLE):
        process, _, host = os.environ.get(variable, "").partition(" ")
        if process.isdigit() and host == socket.gethostname():
            snakemakes.append(int(process))

    def watch():
        while os.getppid() == parent and all(map(files.is_alive, snakemakes)):
            time.sleep(CHECK_SECONDS)
        if asked():
            time.sleep(GRACE)
        logging.error("the process that started this job is gone: stopping")
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
