"""What a job says: everything into its log, and after a failure one sentence on the screen that names it."""

import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from goldilocks import files

ORPHAN_CHECK_SECONDS = 1.0
SHELLS = ("bash", "dash", "sh", "zsh")


@contextmanager
def job_log(path: str | Path) -> Iterator[None]:
    """Send log messages and warnings to `path`; turn an exception into one sentence and exit status 1.

    The traceback goes into the log. The job also ends itself when the process that started it is gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=path, filemode="w", level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    logging.captureWarnings(True)
    _die_with_parents()
    start = time.monotonic()
    try:
        yield
    except Exception as error:
        logging.error("%s", traceback.format_exc())
        sentence = " ".join(str(error).split()) or type(error).__name__
        logging.error("%s", sentence)
        print(f"\n{sentence} (log: {path})", file=sys.stderr, flush=True)
        sys.exit(1)
    logging.info("done in %.1f s", time.monotonic() - start)


def record_failure(paths_to_workflow_logs: list[str], path_to_record: str | Path) -> None:
    """Leave one sentence about the first job that failed, read off Snakemake's log, where `make` finds it."""
    text = "\n".join(Path(path).read_text(errors="replace") for path in paths_to_workflow_logs)
    sentence = "the workflow stopped: its message stands above"
    job = re.search(r"Error in rule (\w+):(.*?)(?=\n\S|\Z)", text, re.DOTALL)
    if job:
        log = re.search(r"log: (\S+)", job[2])
        lines = _lines(Path(log[1])) if log else []
        reason = f": {re.sub(r'^[-0-9]+ [0-9:,]+ ', '', lines[-1])}" if lines else ""
        sentence = f"rule {job[1]} failed{reason} (log: {log[1] if log else 'none'})"
    files.write_text(f"{sentence}\n", path_to_record)


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").strip().splitlines() if path.exists() else []


def _die_with_parents() -> None:
    """Exit when what runs the job dies: Snakemake, be it the parent or hidden behind a shell.

    A signal at the parent's death (PR_SET_PDEATHSIG) would not do, because such a shell outlives Snakemake.
    """
    watched = _runner()

    def watch():
        while _runner() == watched:
            time.sleep(ORPHAN_CHECK_SECONDS)
        logging.error("the process that started this job is gone: stopping")
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _runner() -> tuple[int, ...]:
    """Process number of the parent and, where that is a shell, of the shell's parent too."""
    parent = os.getppid()
    try:
        # /proc/<pid>/stat: number (name) state parent …
        name, rest = Path(f"/proc/{parent}/stat").read_text().split("(", 1)[1].rsplit(")", 1)
        return (parent, int(rest.split()[1])) if name in SHELLS else (parent,)
    except OSError:
        return (parent,)
