"""Shared by the benchmarks: rows of their tables, times of methods in turns, memory in a process of its own."""

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
BUSY = 0.5  # load average above which a benchmark warns


def warn_if_busy() -> None:
    """Print a warning if other processes use the cores."""
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"other processes are at work (load {load:.1f}): times will be longer and unsteady", flush=True)


def seconds_in_turns(runs: dict[str, Callable[[], object]], rounds: int, seconds_per_method: float) -> dict[str, float]:
    """Median seconds of each run over rounds in which they take turns; a run leaves when its time is used up."""
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if not times[name] or sum(times[name]) + times[name][-1] < seconds_per_method:
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(several) for name, several in times.items()}


def in_a_process(function: Callable, arguments: tuple, preloaded: list[str], what: str):
    """Object sent by `function(*arguments, sender)` in a process forked from one that has only loaded the libraries.

    Raises ValueError naming `what` was measured if the process ends without an answer.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloaded)  # Missing modules are skipped.
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(*arguments, sender))
    # The server finds the preloaded modules by this variable, which later programs must not see.
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
    """Peak resident memory of this process in MiB; Linux counts in KiB, macOS in bytes.

    `anew` resets the peak first, where the system can, so that building the problem does not hide it.
    """
    if anew and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))


def row(case: str, method: str, seconds: float, peak: float, flops: int, base: float) -> tuple:
    """Print a row of the table and return it; `base` are the seconds of the engine."""
    found = (case, method, f"{seconds:.4g}", f"{peak:.1f}", flops, f"{seconds / base:.3g}")
    print(f"{case}: {method}: {found[2]} s, {found[3]} MiB, {flops:.3g} flops, {found[5]} engines", flush=True)
    return found


def write(rows: list[tuple], path_to_output: str | Path) -> None:
    """Write the table as CSV."""
    with files.whole_file(path_to_output) as path, open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
