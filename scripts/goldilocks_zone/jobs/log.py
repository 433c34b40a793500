"""The log of a job: all messages, warnings and tracebacks, and after a failure one sentence on the screen."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from goldilocks_zone.jobs import failures, lifecycle
from goldilocks_zone.provenance import fingerprints, records
from goldilocks_zone.storage import files

# The last line of a job's log.
DONE = "done in %.1f s; seconds of processors: %.1f of work after %.1f of imports"


@contextmanager
def job_log(path: str | Path, inputs: Iterable[str] = (), *modules: str) -> Iterator[None]:
    """Send log messages and warnings to `path`; turn an exception into one sentence and exit status 1.

    The traceback goes into the log. Records among Snakemake's `inputs` must be those that the run was started with, and
    the input `code` must match the running script and the `modules` that it loads. The job exits when the
    process that started it dies. Invalid input (ValueError) is not retried: a second attempt in the same run fails
    immediately with the same message. The process ends with the block: no code after it is run.
    """
    logging.raiseExceptions = False  # On a full disk a line of the log is lost, and nothing else.
    lifecycle.end_with_run()
    start, imports = time.monotonic(), _processor_seconds()
    try:
        _open_log(Path(path))
        _refuse_again(_refusal_of(path))
        records.refuse_changed(inputs)
        if code := getattr(inputs, "code", None):
            fingerprints.refuse_changed(Path(sys.modules["__main__"].__file__), code, *modules)
        yield
        work = _processor_seconds() - imports
        logging.info(DONE, time.monotonic() - start, work, imports)
    except KeyboardInterrupt:
        logging.error("%sinterrupted", failures.FAILED)
        sys.exit(130)
    except Exception as error:
        logging.error("%s", traceback.format_exc())
        sentence = " ".join(str(error).split()) or type(error).__name__
        logging.error("%s%s", failures.FAILED, sentence)
        if isinstance(error, ValueError):
            with suppress(OSError):
                text = f"{lifecycle.run()}\n{sentence}\n"
                _refusal_of(path).write_text(text, encoding="utf-8", errors="backslashreplace")
        print(f"\n{sentence} (log: {path})", file=sys.stderr, flush=True)
        sys.exit(1)
    _leave()


def _open_log(path: Path) -> None:
    # Without any handler logging would write to the screen.
    logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()], force=True)
    logging.captureWarnings(True)
    with files.writing(path):
        handler = logging.FileHandler(path, mode="w", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.root.addHandler(handler)


def _refusal_of(path: str | Path) -> Path:
    """The file that keeps the message about invalid input for a second attempt."""
    return Path(path).with_suffix(".refused")


def _refuse_again(path: Path) -> None:
    """Raise ValueError with the message of an earlier attempt in the same run, if there is one."""
    run, _, sentence = path.read_text(errors="replace").partition("\n") if path.exists() else ("", "", "")
    path.unlink(missing_ok=True)
    if run and run == lifecycle.run():
        raise ValueError(sentence)


def _processor_seconds() -> float:
    """CPU seconds of this process and its children so far."""
    return sum(os.times()[:4])


def _leave() -> None:
    """Exit without interpreter teardown, which takes torch over 0.5 s."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
