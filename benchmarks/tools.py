"""Shared tools of the benchmarks: tables, command line, interleaved timing of methods, memory in a separate process."""

import argparse
import csv
import math
import multiprocessing
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from goldilocks_zone.jobs import failures
from goldilocks_zone.storage import files

COLUMNS = ("case", "method", "seconds", "first_seconds", "peak_mib", "flops", "ratio_to_engine", "least", "greatest")
THREADS = 2
ROUNDS = 5
BUSY = 0.5  # load average of the machine above which a benchmark prints a warning


def main(
    bench: Callable[[dict, str], None],
    groups: dict[str, dict],
    name: str,
    description: str,
    devices: Sequence[str] = ("cpu",),
) -> None:
    """Parse the command line, and call `bench(cases, path_to_output)` on the cases that it names.

    These are one of the `groups` of cases, or a single case of the group `all`. By default, the output is the CSV file
    `name` in results/benchmarks. A choice of `devices` is offered if there are several.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cases", choices=[*groups, *groups["all"]], default="all", help="a group, or a single case")
    parser.add_argument("--output", default=f"results/benchmarks/{name}.csv")
    if len(devices) > 1:
        parser.add_argument("--device", choices=devices, default=devices[0])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # From libraries, about torch.jit and gradients that keep their graph.
    cases = groups.get(arguments.cases) or {arguments.cases: groups["all"][arguments.cases]}
    if len(devices) > 1:
        cases = {name: replace(case, device=arguments.device) for name, case in cases.items()}
    with failures.one_sentence():
        bench(cases, arguments.output)


def bench(
    measure_seconds: Callable, memory_and_flops: Callable, preloaded: list[str], cases: dict, path_to_output: str
) -> None:
    """Measure every case by its methods, print each measurement and write them all to a CSV.

    `measure_seconds(name, case)` returns for each method a list of seconds, of the first run and of the run in each
    round. It raises ValueError in one sentence if the result of a method is wrong. `memory_and_flops(case, method)`
    returns MiB and flops; it runs in a process in which the modules `preloaded` are already imported.
    """
    torch.set_num_threads(THREADS)
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"other processes are at work (load {load:.1f}): times will be longer and unsteady", flush=True)
    rows = [COLUMNS]
    for name, case in cases.items():
        times = measure_seconds(name, case)
        _, *base = times.get("engine_sweep") or times["engine"]
        for method, (first, *seconds) in times.items():
            peak, flops = in_a_process(memory_and_flops, (case, method), preloaded, method)
            median = statistics.median(seconds)
            ratios = [one / other for one, other in zip(seconds, base)]
            ratio = [f"{each:.3g}" for each in (median / statistics.median(base), min(ratios), max(ratios))]
            row = (name, method, f"{median:.4g}", f"{first:.4g}", f"{peak:.1f}", flops, *ratio)
            ours = f"{ratio[0]} engines ({ratio[1]} to {ratio[2]} in {len(ratios)} rounds)"
            print(
                f"{name}: {method}: {row[2]} s, at first {row[3]} s, {row[4]} MiB, {flops:.3g} flops, {ours}",
                flush=True,
            )
            rows.append(row)
    with files.whole_file(path_to_output) as path, open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def seconds_in_turns(
    runs: dict[str, Callable[[], object]], first: dict[str, float] | None = None, most: float = math.inf
) -> dict[str, list[float]]:
    """Seconds of several runs of each function: of its first run, and then of its run in each of ROUNDS rounds.

    The functions take turns in a round. `first` has the seconds of first runs that were timed before; for other
    functions, the first round also counts as the first run. A function whose first run took more than `most` seconds is
    not run again, and the seconds of this run take the place of those of all rounds.
    """
    first = first or {}
    times = {name: [first[name]] if first.get(name, 0) > most else [] for name in runs}
    turning = {name: run for name, run in runs.items() if not times[name]}
    for _ in range(ROUNDS):
        for name, run in turning.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: [first.get(name, several[0]), *several] for name, several in times.items()}


def in_a_process(function: Callable, arguments: tuple, preloaded: list[str], what: str):
    """Result of `function(*arguments)` in a new process, forked from one that has only imported `preloaded` modules.

    Raises ValueError if the process ends without an answer; the message names `what` was measured.
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
        answer = "ended without an answer: it may have run out of memory"
        raise ValueError(f"the process that measures the memory of {what} {answer}") from None
    finally:
        process.join()


def _send(function: Callable, arguments: tuple, sender) -> None:
    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    sender.send(function(*arguments))


def peak_mib(anew: bool = False, device: str = "cpu") -> float:
    """Peak memory of this process in MiB: memory allocated by torch on the device cuda, else resident memory.

    `anew` first resets the peak, where the system allows it, so that an earlier peak does not hide a later one. Linux
    counts resident memory in KiB, macOS in bytes.
    """
    if device == "cuda":
        if anew:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / (1 << 20)
    if anew and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))
