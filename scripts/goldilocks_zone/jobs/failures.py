"""Failure messages of one sentence, for the screen and for the file whose text `make` prints last.

Imports only the standard library, because `make clean` must work without an environment.
"""

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from goldilocks_zone.storage import files

# Environment variable with the path of the file for `make`, outside the checkout, whose disk may be full or read-only.
FAILURE_VARIABLE = "GOLDILOCKS_FAILURE"
FAILED = "FAILED "  # begins the line about a failure in a job's log, after date and time
# Matches a failed job in Snakemake's log, together with the preceding lines on how its process ended, if there are any.
_FAILED_JOB = re.compile(
    r"(?:^Command '[^\n]*' (?:died with <Signals\.(?P<signal>\w+)|returned non-zero exit status (?P<status>\d+))"
    r"[^\n]*\n)?"
    r"(?:^\[[^\n]*\]\n)?^Error in rule (?P<rule>\w+):(?P<about>.*?jobid: (?P<number>\d+).*?)(?=\n\S|\Z)",
    re.DOTALL | re.MULTILINE,
)


@contextmanager
def one_sentence() -> Iterator[None]:
    """On a ValueError or OSError in the with statement, show its message, report it to `make`, and exit with 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        report(str(error))
        sys.exit(str(error))


def report(sentence: str) -> None:
    """Write `sentence`, a failure's message, to the file that GOLDILOCKS_FAILURE names, whose text `make` prints last.

    Writes nothing if the variable is not set, or if an earlier failure has written to the file.
    """
    path = os.environ.get(FAILURE_VARIABLE)
    if path and not Path(path).exists():
        # The sentence is on the screen anyway.
        with suppress(OSError):
            Path(path).write_text(f"{sentence}\n", encoding="utf-8", errors="backslashreplace")


def report_failed_job(paths_to_workflow_logs: list[str]) -> None:
    """Report the rule, reason and log of the first job in Snakemake's logs whose last attempt failed (see `report`).

    The reason comes from the job's own log or, because a killed job cannot write one, from the way its process ended.
    """
    text = "\n".join(Path(path).read_text(errors="replace") for path in paths_to_workflow_logs)
    failed = [job for job in _FAILED_JOB.finditer(text) if f"Finished jobid: {job['number']} " not in text[job.end() :]]
    log = re.search(r"log: (\S+)", failed[0]["about"]) if failed else None
    if not log:
        return report("the workflow stopped: its message stands above")
    path = Path(log[1])
    said = path.read_text(errors="replace") if path.exists() else ""
    sentences = re.findall(rf"^[-0-9]+ [0-9:,]+ {FAILED}(.*)", said, re.MULTILINE)
    reason = sentences[-1] if sentences else _end_of(failed[0])
    try:
        files.refuse_unwritable([path.parent])
    except OSError as error:
        reason = str(error)
    report(f"rule {failed[0]['rule']} failed: {reason} (log: {path})")


def _end_of(job: re.Match) -> str:
    """Describe how the process of a failed job ended, for a job that wrote no message to its log.

    `job` is a match of _FAILED_JOB in Snakemake's log. SIGKILL is a sign of too little memory.
    """
    if said := re.search(r"SLURM status is: '(\w+)'", job["about"]):
        return f"SLURM reports {said[1]}, and the job gave no reason: its output is in logs/slurm"
    if job["signal"] == "SIGKILL" or job["status"] == str(128 + signal.SIGKILL):
        return "killed (SIGKILL) without a message, perhaps because memory ran out; run again"
    if job["signal"]:
        return f"ended by {job['signal']} without giving a reason; run again"
    status = f" with status {job['status']}" if job["status"] else ""
    return f"ended{status} without a reason in its log: see the output above"
