"""What benchmarks share: rows of their tables, times in turns, memory in a process of its own."""

import csv
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from goldilocks_zone.storage import files

COLUMNS = ("case", "method", "seconds", "peak_mib", "flops", "ratio_to_engine")
THREADS = 2
BUSY = 0.5  # processes that want a core when a benchmark starts


def warn_if_busy() -> None:
    """Say so where other processes are at work."""
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"other processes are at work (load {load:.1f}): times will be longer and unsteady", flush=True)


def seconds_in_turns(runs: dict[str, Callable[[], object]], rounds: int, seconds_per_method: float) -> dict[str, float]:
    """Median seconds of each run over rounds in which they take turns; each takes part until it has used its time."""
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if not times[name] or sum(times[name]) + times[name][-1] < seconds_per_method:
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(several) for name, several in times.items()}


def in_a_process(function: Callable, arguments: tuple, preloaded: list[str], what: str):
    """What `function(*arguments, sender)` sends, from a process forked from one that has but loaded the libraries.

    Raises ValueError naming `what` was measured if the process ends without an answer.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloaded)  # Those that are not there are passed over.
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(*arguments, sender))
    # What the server loads ahead is found only so; other programs that are started later must not see it.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise ValueError(f"the process that measures the memory of {what} ended: is there enough of it?") from None
    finally:
        process.join()


def peak_mib(anew: bool = False) -> float:
    """Peak resident memory of this process, which Linux counts in KiB and macOS in bytes.

    `anew`: from now on, where the system can forget what was before; else building the problem may hide it.
    """
    if anew and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))


def row(case: str, method: str, seconds: float, peak: float, flops: int, base: float) -> tuple:
    """A row of the table, printed; `base` are the seconds of the engine."""
    found = (case, method, f"{seconds:.4g}", f"{peak:.1f}", flops, f"{seconds / base:.3g}")
    print(f"{case}: {method}: {found[2]} s, {found[3]} MiB, {flops:.3g} flops, {found[5]} engines", flush=True)
    return found


def write(rows: list[tuple], path_to_output: str | Path) -> None:
    """The table as a CSV."""
    with files.whole_file(path_to_output) as path, open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
