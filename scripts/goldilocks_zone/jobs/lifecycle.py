"""Termination of a job: with its run, or after a checkpoint when SLURM, scancel or kill ask it to stop."""

import logging
import os
import signal
import socket
import threading
import time

from goldilocks_zone.storage import files

GRACE = 20.0  # seconds allowed for the checkpoint; SLURM's own KillWait is 30
CHECK_SECONDS = 1.0
# Variables with process number and machine of the run's first Snakemake, which identifies the run, and of the one that
# started the job, which differs on a node of a cluster.
RUN_VARIABLE, STARTER_VARIABLE = "GOLDILOCKS_RUNNER", "GOLDILOCKS_STARTER"
_asked = threading.Event()


def listen() -> None:
    """Treat SIGTERM and SIGUSR1 as requests to stop instead of ending the process at once."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: _asked.set())


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _asked.is_set()


def name_to_jobs(first: bool) -> None:
    """Pass the number of this Snakemake process to the jobs that it starts; the `first` of a run identifies the run."""
    for variable in (STARTER_VARIABLE, *([RUN_VARIABLE] if first else [])):
        os.environ[variable] = f"{os.getpid()} {socket.gethostname()}"


def run() -> str:
    """Identity of the run that a job serves; empty outside a run."""
    return os.environ.get(RUN_VARIABLE, "")


def end_with_run() -> None:
    """Exit soon after Snakemake or the parent process has died: the parent may be a shell that outlives Snakemake."""
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
