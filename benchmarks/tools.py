"""Shared by the benchmarks: their tables and command line, times of methods in turns, memory in a separate process."""

import argparse
import csv
import multiprocessing
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from goldilocks_zone.jobs import failures
from goldilocks_zone.storage import files

COLUMNS = ("case", "method", "seconds", "peak_mib", "flops", "ratio_to_engine")
THREADS = 2
BUSY = 0.5  # load average above which a benchmark warns


def main(bench: Callable[[dict, str], None], groups: dict[str, dict], name: str, description: str) -> None:
    """Run a benchmark on the cases that the command line names: one of the `groups`, or a case of the group `all`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cases", choices=[*groups, *groups["all"]], default="all", help="a group, or a single case")
    parser.add_argument("--output", default=f"results/benchmarks/{name}.csv")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Of the libraries: torch.jit, and gradients that keep their graph.
    with failures.one_sentence():
        bench(groups.get(arguments.cases) or {arguments.cases: groups["all"][arguments.cases]}, arguments.output)


def bench(
    measure_seconds: Callable, memory_and_flops: Callable, preloaded: list[str], cases: dict, path_to_output: str
) -> None:
    """Measure every case by its methods, print each measurement and write them all to a CSV.

    `measure_seconds(name, case)` gives the seconds of each method, and raises ValueError in one sentence if a method's
    result is wrong; `memory_and_flops(case, method)` runs in a process that has `preloaded` these modules.
    """
    torch.set_num_threads(THREADS)
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"other processes are at work (load {load:.1f}): times will be longer and unsteady", flush=True)
    rows = [COLUMNS]
    for name, case in cases.items():
        times = measure_seconds(name, case)
        base = times.get("engine_sweep") or times["engine"]
        for method, seconds in times.items():
            peak, flops = in_a_process(memory_and_flops, (case, method), preloaded, method)
            row = (name, method, f"{seconds:.4g}", f"{peak:.1f}", flops, f"{seconds / base:.3g}")
            print(f"{name}: {method}: {row[2]} s, {row[3]} MiB, {flops:.3g} flops, {row[5]} engines", flush=True)
            rows.append(row)
    with files.whole_file(path_to_output) as path, open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


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
    """Result of `function(*arguments)` in a process forked from one that has only loaded the libraries.

    Raises ValueError naming `what` was measured if the process ends without an answer.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloaded)  # Missing modules are skipped.
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(function, arguments, sender))
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


def _send(function: Callable, arguments: tuple, sender) -> None:
    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    sender.send(function(*arguments))


def peak_mib(anew: bool = False) -> float:
    """Peak resident memory of this process in MiB; Linux counts in KiB, macOS in bytes.

    `anew` resets the peak first, where the system can, so that building the problem does not hide it.
    """
    if anew and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))
