"""Log of a job: messages, warnings and tracebacks go to a file, and one sentence on a failure goes to the screen."""

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

DONE = "done in %.1f s; seconds of processors: %.1f of work after %.1f of imports"


@contextmanager
def job_log(path: str | Path, inputs: Iterable[str] = (), *modules: str) -> Iterator[None]:
    """Run the with statement as a job: log to the file `path`, and end the process afterwards.

    An exception is logged with its traceback, printed as one sentence, and gives exit status 1. `inputs` are
    Snakemake's inputs of the job. The job fails at once if a record among them has changed since the run's start. If
    they have an entry `code`, a file with a fingerprint, it also fails if the running script and the `modules` that it
    loads by name have another fingerprint. Invalid input (ValueError) is not retried: a second attempt in the same run
    fails at once with the same message. The process also ends when its parent dies.
    """
    logging.raiseExceptions = False  # On a full disk, only lines of the log are lost.
    lifecycle.end_with_run()
    start, imports = time.monotonic(), sum(os.times()[:4])
    refusal = Path(path).with_suffix(".refused")  # keeps the message about invalid input for a second attempt
    try:
        _open_log(Path(path))
        _refuse_again(refusal)
        records.refuse_changed(inputs)
        if code := getattr(inputs, "code", None):
            fingerprints.refuse_changed(Path(str(sys.modules["__main__"].__file__)), code, *modules)
        yield
        logging.info(DONE, time.monotonic() - start, sum(os.times()[:4]) - imports, imports)
    except KeyboardInterrupt:
        logging.error("%sinterrupted", failures.FAILED)
        sys.exit(130)
    except Exception as error:
        logging.error("%s", traceback.format_exc())
        sentence, kind = " ".join(str(error).split()), type(error).__name__
        if type(error).__module__ == "builtins" and not isinstance(error, (ValueError, OSError)):
            # The text of a KeyError, for example, is the key alone.
            sentence = f"{kind}: {sentence}" if sentence else kind
        sentence = sentence or kind
        logging.error("%s%s", failures.FAILED, sentence)
        if isinstance(error, ValueError):
            with suppress(OSError):
                text = f"{lifecycle.run()}\n{sentence}\n"
                refusal.write_text(text, encoding="utf-8", errors="backslashreplace")
        print(f"\n{sentence} (log: {path})", file=sys.stderr, flush=True)
        sys.exit(1)
    # Exit without interpreter teardown, which takes torch over 0.5 s.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _open_log(path: Path) -> None:
    # Without any handler logging would write to the screen.
    logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()], force=True)
    logging.captureWarnings(True)
    with files.writing(path):
        handler = logging.FileHandler(path, mode="w", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.root.addHandler(handler)


def _refuse_again(path: Path) -> None:
    """Raise ValueError with the message of an earlier attempt in the same run, if there is one in the file `path`.

    The file is removed in any case.
    """
    run, _, sentence = path.read_text(errors="replace").partition("\n") if path.exists() else ("", "", "")
    path.unlink(missing_ok=True)
    if run and run == lifecycle.run():
        raise ValueError(sentence)
