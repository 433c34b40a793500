"""What a job says: everything into its log, and after a failure one sentence on the screen that names it."""

import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.provenance import fingerprints, records
from goldilocks_zone.storage import files

ORPHAN_CHECK_SECONDS = 1.0
SHELLS = ("bash", "dash", "sh", "zsh")
# Names the file from which `make` takes its last line: outside the checkout, whose disk may be full or read-only.
FAILURE_VARIABLE = "GOLDILOCKS_FAILURE"
# Names the process of Snakemake that a job serves, and its machine.
RUNNER_VARIABLE = "GOLDILOCKS_RUNNER"
# The last line of a job's log.
DONE = "done in %.1f s; seconds of processors: %.1f of work after %.1f of imports"
# What a log's line about a failure begins with, behind its date and time.
FAILED = "FAILED "


@contextmanager
def job_log(path: str | Path, inputs: Iterable[str] = ()) -> Iterator[None]:
    """Send log messages and warnings to `path`; turn an exception into one sentence and exit status 1.

    The traceback goes into the log. Of a job's `inputs`, as Snakemake hands them to it, records must be those that the
    run was started with, and the input `code` that of the script at work. The job also ends itself when the process
    that started it is gone. What a job refuses (ValueError) it refuses again: when the same run tries once more, it
    ends at once with the same sentence. The process ends with the block: nothing behind it is run.
    """
    logging.raiseExceptions = False  # On a full disk a line is lost, and with it nothing more.
    _die_with_parents()
    start, imports = time.monotonic(), _processor_seconds()
    try:
        _open_log(Path(path))
        _refuse_again(_refusal_of(path))
        records.refuse_changed(inputs)
        if code := getattr(inputs, "code", None):
            fingerprints.refuse_changed(Path(sys.modules["__main__"].__file__), code)
        yield
        work = _processor_seconds() - imports
        logging.info(DONE, time.monotonic() - start, work, imports)
    except KeyboardInterrupt:
        logging.error("%sinterrupted", FAILED)
        sys.exit(130)
    except Exception as error:
        logging.error("%s", traceback.format_exc())
        sentence = " ".join(str(error).split()) or type(error).__name__
        logging.error("%s%s", FAILED, sentence)
        if isinstance(error, ValueError):
            with suppress(OSError):
                _refusal_of(path).write_text(f"{_run()}\n{sentence}\n", encoding="utf-8", errors="backslashreplace")
        print(f"\n{sentence} (log: {path})", file=sys.stderr, flush=True)
        report(f"{sentence} (log: {path})")
        sys.exit(1)
    _leave()


def _leave() -> None:
    """End this process without taking its modules apart: of torch's that takes more than half a second."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _processor_seconds() -> float:
    """Of this process and its children so far."""
    return sum(os.times()[:4])


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn an error of a command into its sentence, for the screen and for `make`, and exit status 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        report(str(error))
        sys.exit(str(error))


def report(sentence: str) -> None:
    """Leave the first failure's sentence where `make` finds it, if it is `make` that runs this."""
    path = os.environ.get(FAILURE_VARIABLE)
    if path and not Path(path).exists():
        # The sentence stands on the screen, whether or not it can be left here too.
        with suppress(OSError):
            Path(path).write_text(f"{sentence}\n", encoding="utf-8", errors="backslashreplace")


def this_process() -> str:
    """This process and its machine, as RUNNER_VARIABLE has them."""
    return f"{os.getpid()} {socket.gethostname()}"


def report_failed_job(paths_to_workflow_logs: list[str]) -> None:
    """Report the first job that failed for good, read off Snakemake's log: a killed job cannot speak for itself."""
    text = "\n".join(Path(path).read_text(errors="replace") for path in paths_to_workflow_logs)
    failed = [job for job in _FAILED_JOB.finditer(text) if f"Finished jobid: {job['number']} " not in text[job.end() :]]
    log = re.search(r"log: (\S+)", failed[0]["about"]) if failed else None
    if not log:
        return report("the workflow stopped: its message stands above")
    failures = re.findall(rf"^[-0-9]+ [0-9:,]+ {FAILED}(.*)", _read(Path(log[1])), re.MULTILINE)
    reason = failures[-1] if failures else _end_of(failed[0])
    try:
        files.refuse_unwritable([Path(log[1]).parent])
    except OSError as error:
        reason = str(error)
    report(f"rule {failed[0]['rule']} failed: {reason} (log: {log[1]})")


# In Snakemake's log: how the process of a job ended, where that is known, and which job it was.
_FAILED_JOB = re.compile(
    r"(?:^Command '[^\n]*' (?:died with <Signals\.(?P<signal>\w+)|returned non-zero exit status (?P<status>\d+))"
    r"[^\n]*\n)?"
    r"(?:^\[[^\n]*\]\n)?^Error in rule (?P<rule>\w+):(?P<about>.*?jobid: (?P<number>\d+).*?)(?=\n\S|\Z)",
    re.DOTALL | re.MULTILINE,
)


def _end_of(job: re.Match) -> str:
    """How a job ended that left no sentence, as far as that is known: want of memory ends one by SIGKILL alone."""
    if said := re.search(r"SLURM status is: '(\w+)'", job["about"]):
        return f"SLURM says {said[1]}, and the job not why: its output is in logs/slurm"
    if job["signal"] == "SIGKILL" or job["status"] == str(128 + signal.SIGKILL):
        return "killed (SIGKILL) before it could say why, perhaps for want of memory; run again"
    if job["signal"]:
        return f"ended by {job['signal']} before it could say why; run again"
    status = f" with status {job['status']}" if job["status"] else ""
    return f"ended{status} before it could say why: its message stands above"


def _refusal_of(path: str | Path) -> Path:
    """The file in which a job leaves what it refuses to do."""
    return Path(path).with_suffix(".refused")


def _refuse_again(path: Path) -> None:
    """Raise ValueError with the sentence of an earlier attempt of the same run, if it left one."""
    run, _, sentence = _read(path).partition("\n")
    path.unlink(missing_ok=True)
    if run and run == _run():
        raise ValueError(sentence)


def _run() -> str:
    """The run that a job serves."""
    return os.environ.get(RUNNER_VARIABLE, "")


def _open_log(path: Path) -> None:
    # Without any handler logging would write to the screen.
    logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()], force=True)
    logging.captureWarnings(True)
    with files.writing(path):
        handler = logging.FileHandler(path, mode="w", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.root.addHandler(handler)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _die_with_parents() -> None:
    """Exit when what runs the job dies: Snakemake, be it the parent or hidden behind a shell.

    A signal at the parent's death (PR_SET_PDEATHSIG) would not do, because such a shell outlives Snakemake.
    Snakemake says who it is, in case it is gone before this job has looked.
    """
    watched = _runner()
    process, _, host = _run().partition(" ")
    here = int(process) if process.isdigit() and host == socket.gethostname() else None

    def watch():
        while _runner() == watched and (here is None or files.is_alive(here)):
            time.sleep(ORPHAN_CHECK_SECONDS)
        if lifecycle.asked():
            time.sleep(lifecycle.GRACE)
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
