"""`make bench`: what the exact projected Hessian costs, by this engine and by other ways, on the same work in one run.

Writes one row for each case and method:

  case            network by its widths (CNN: five blocks of convolution, pooling and ReLU), then what differs from a
                  single point at r_X, d = 50 directions, N = 1000 examples and float32 tangents: d, N, float64, or R,
                  the number of radii from log10 r²/r_X² = -4 to 4; -nobias: without biases (else they are zero, and
                  the plane has bias directions); dense: directions with Gaussian entries; else the planes are those of
                  the studies, sparse with the shell metric, which the competitors cannot make use of
  method          see bench_methods.py
  seconds         median over rounds in which the methods take turns, after a warm-up; where a competitor's warm-up
                  takes longer than SLOW_SECONDS, it is its measurement
  peak_mib        peak resident memory of one run in a process of its own, above that of the process with its inputs
  flops           of one run, counted by torch.utils.flop_counter in matrix products and convolutions
  ratio_to_engine seconds over those of `engine`; of `engine_sweep` where a case has several radii

A method that takes one point at a time is timed on all radii; its memory and flops are those of one radius, flops times
the number of radii (every radius does the same operations). Every H_d is held to that of `engine`, and a benchmark of
wrong results stops; `matmul` computes none.
"""

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
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

import bench_methods
from bench_methods import Problem
from goldilocks import files, logs, networks, subspaces
from goldilocks.labels import Plane

COLUMNS = ("case", "method", "seconds", "peak_mib", "flops", "ratio_to_engine")
THREADS = 2
# Rounds after the warm-up: a method takes part while it has used less than this time, but in the first.
SECONDS_PER_METHOD, MOST_ROUNDS, SLOW_SECONDS = 3.0, 7, 10.0
BUSY = 0.5  # processes that want a core when the benchmark starts
ENGINES = ("engine", "engine_sweep")
# The error that rounding may make, as in the tests of the engine: eps times this times the largest logit (or one).
TOLERANCE = 200.0
# Enough to load every library and kernel before anything is measured.
SMALL_DIRECTIONS, SMALL_EXAMPLES = 2, 8
# The counter of flops loads the last at its first use.
PRELOADED = ["bench_curvature", *bench_methods.LIBRARIES.values(), "torch._dynamo"]
WIDTHS_200 = (784, 200, 200, 10)


@dataclass(frozen=True)
class Case:
    """What is computed: widths from inputs to classes (None: the CNN), and the size of the work."""

    widths: tuple[int, ...] | None
    biases: bool = True
    directions: int = 50
    examples: int = 1000
    radii: int = 1
    double: bool = False
    plane: str = "sparse"
    left_out: tuple[str, ...] = ()


# In growth the two ways that the libraries go stand for them; the slowest way is left out where it takes long.
LIBRARIES = tuple(bench_methods.LIBRARIES)
LARGE = (*LIBRARIES, "torch.func.hessian")
WAYS = ("torch.func.hessian", "vmap jvp-grad", "double backward loop")
MAIN = {
    "784-200-200-10": Case(WIDTHS_200),
    "3072-200-200-10": Case((3072, 200, 200, 10)),
    "CNN": Case(None),
    "784-200-200-10 float64": Case(WIDTHS_200, double=True),
    "784-200-200-10-nobias R=25": Case(WIDTHS_200, biases=False, radii=25),
    "784-200-200-10 R=25": Case(WIDTHS_200, radii=25, left_out=WAYS),
    "784-200-200-10 dense": Case(WIDTHS_200, plane="dense"),
    "784-200-200-10-nobias R=25 dense": Case(WIDTHS_200, biases=False, radii=25, plane="dense", left_out=LARGE),
}
GROWTH = {
    "784-200-200-10 d=10": Case(WIDTHS_200, directions=10, left_out=LIBRARIES),
    "784-200-200-10": MAIN["784-200-200-10"],
    "784-200-200-10 d=100": Case(WIDTHS_200, directions=100, left_out=LIBRARIES),
    "784-200-200-10 d=500": Case(WIDTHS_200, directions=500, left_out=LARGE),
    "784-200-200-10 N=250": Case(WIDTHS_200, examples=250, left_out=LIBRARIES),
    "784-200-200-10 N=4000": Case(WIDTHS_200, examples=4000, left_out=LARGE),
    "784-50-50-10": Case((784, 50, 50, 10), left_out=LIBRARIES),
    "784-800-800-10": Case((784, 800, 800, 10), left_out=LARGE),
    "784-200-200-10-nobias": Case(WIDTHS_200, biases=False, left_out=LIBRARIES),
    "784-200-200-10-nobias R=5": Case(WIDTHS_200, biases=False, radii=5, left_out=LIBRARIES),
    "784-200-200-10-nobias R=25": MAIN["784-200-200-10-nobias R=25"],
}
CASES = {"main": MAIN, "growth": GROWTH, "all": MAIN | GROWTH}


def build_problem(case: Case) -> Problem:
    """Random standardised images of the dataset's shape, random labels, a Glorot initialisation, a plane."""
    torch.manual_seed(0)
    image = {784: (1, 28, 28), 3072: (3, 32, 32)}.get(case.widths[0], (case.widths[0],)) if case.widths else (1, 28, 28)
    network = (_dense(case.widths, case.biases) if case.widths else _convolutional()).double()
    for tensor in network.parameters():
        nn.init.zeros_(tensor) if tensor.ndim < 2 else nn.init.xavier_normal_(tensor)
    parameters = nn.utils.parameters_to_vector(network.parameters()).detach()
    weights = networks.parameters_of(network)
    eta = subspaces.metric(
        [parameter.size for parameter in weights],
        [parameter.is_bias for parameter in weights],
        networks.weight_deviations(weights, "glorot"),
        "shell",
        bias_directions=case.biases,
    )
    rows = subspaces.directions(Plane(case.directions, case.plane), eta, np.random.default_rng(0))
    directions = torch.as_tensor(rows).to(torch.float64 if case.double else torch.float32)
    inputs = torch.randn(case.examples, *image, dtype=torch.float64)
    labels = torch.randint(case.widths[-1] if case.widths else 10, (case.examples,))
    # The initialisation's own norm stands for r_X, its root mean square: they differ by less than a percent.
    scales = tuple(10 ** (x / 2) for x in np.linspace(-4, 4, case.radii)) if case.radii > 1 else (1.0,)
    return Problem(network, parameters, directions, inputs, labels, scales)


def _dense(widths: tuple[int, ...], biases: bool) -> nn.Sequential:
    layers = [nn.Flatten()]
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o, bias=biases), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _convolutional() -> nn.Sequential:
    layers = []
    for channels in (1, 16, 16, 16, 16):
        layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 10))


def methods_of(case: Case) -> list[str]:
    """The methods that a case is measured by: those installed, without what it leaves out."""
    return [
        name
        for name in bench_methods.installed()
        if name not in case.left_out and (name != "engine_sweep" or case.radii > 1)
    ]


def bench(cases: dict[str, Case], path_to_output: str | Path) -> None:
    """Measure every case by its methods, print each measurement and write them all to a CSV.

    Raises ValueError in one sentence if a method's H_d is not that of the engine.
    """
    torch.set_num_threads(THREADS)
    if missing := sorted(set(bench_methods.METHODS) - set(bench_methods.installed())):
        print(f"not installed, and left out: {', '.join(missing)} (make bench installs them)", flush=True)
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"other processes are at work (load {load:.1f}): times will be longer and unsteady", flush=True)
    rows = []
    for name, case in cases.items():
        seconds = measure_seconds(name, case)
        base = seconds["engine_sweep" if case.radii > 1 else "engine"]
        for method in seconds:
            peak, flops = measure_memory_and_flops(case, method)
            row = (name, method, f"{seconds[method]:.4g}", f"{peak:.1f}", flops, f"{seconds[method] / base:.3g}")
            rows.append(row)
            print(f"{name}: {method}: {row[2]} s, {row[3]} MiB, {flops:.3g} flops, {row[5]} engines", flush=True)
    with files.whole_file(path_to_output) as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])


def measure_seconds(name: str, case: Case) -> dict[str, float]:
    """Median seconds of each method, all held to the engine in their warm-up."""
    problem = build_problem(case)
    factor = subspaces.cholesky(problem.directions.double().numpy())
    tolerances = _tolerances(problem)
    runs, times, reference = {}, {}, None
    for method in methods_of(case):
        prepare(method, build_problem(_small(case)))()
        runs[method] = prepare(method, problem)
        start = time.perf_counter()
        found = runs[method]()
        times[method] = [time.perf_counter() - start]
        if method == "matmul":
            continue
        hessians = _orthonormalised(found, factor)
        reference = hessians if reference is None else reference
        errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(hessians, reference)]
        worst = max(range(len(errors)), key=lambda i: errors[i] / tolerances[i])
        print(f"{name}: {method}: relative error {errors[worst]:.1e}, may be {tolerances[worst]:.1e}", flush=True)
        if not errors[worst] <= tolerances[worst]:
            raise ValueError(
                f"{method} differs from the engine by {errors[worst]:.1e} of H_d in the case {name}, "
                f"and rounding explains {tolerances[worst]:.1e}: one of the two is wrong"
            )
    again = [method for method in runs if method in ENGINES or times[method][0] < SLOW_SECONDS]
    for method in again:
        times[method] = []
    for _ in range(MOST_ROUNDS):
        for method in again:
            if not times[method] or sum(times[method]) + times[method][-1] < SECONDS_PER_METHOD:
                start = time.perf_counter()
                runs[method]()
                times[method].append(time.perf_counter() - start)
    return {method: statistics.median(several) for method, several in times.items()}


def prepare(method: str, problem: Problem) -> Callable[[], list]:
    """The run of a method that gives one result for each radius."""
    at = bench_methods.METHODS[method](problem)
    if method == "engine_sweep":
        return lambda: at(problem.parameters)
    return lambda: [at(scale * problem.parameters) for scale in problem.scales]


def _orthonormalised(found: list, factor: np.ndarray) -> list[np.ndarray]:
    """H_d over orthonormal directions, as the engine gives it."""
    return [
        subspaces.orthonormalised(each.double().numpy(), factor) if torch.is_tensor(each) else each.hessian
        for each in found
    ]


def _tolerances(problem: Problem) -> list[float]:
    """200 eps max(1, max |z|) for each radius: at near ties a probability's error is eps |z|."""
    with torch.no_grad():
        largest = []
        for scale in problem.scales:
            nn.utils.vector_to_parameters(scale * problem.parameters, problem.network.parameters())
            largest.append(float(problem.network(problem.inputs).abs().max()))
    nn.utils.vector_to_parameters(problem.parameters, problem.network.parameters())
    return [TOLERANCE * torch.finfo(problem.dtype).eps * max(1.0, z) for z in largest]


def measure_memory_and_flops(case: Case, method: str) -> tuple[float, int]:
    """Peak memory (MiB) and flops of one run, in a process forked from one that has but loaded the libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)  # Those that are not there are passed over.
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_memory_and_flops, args=(case, method, sender))
    # What the server loads ahead is found only so; other programs that are started later must not see it.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise ValueError(f"the process that measures the memory of {method} ended: is there enough of it?") from None
    finally:
        process.join()


def _send_memory_and_flops(case: Case, method: str, sender) -> None:
    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    one_at_a_time = method != "engine_sweep"
    case, radii = replace(case, radii=1 if one_at_a_time else case.radii), case.radii
    bench_methods.count_flops(prepare(method, build_problem(_small(case))))
    problem = build_problem(case)
    before = _peak_mib(anew=True)
    run = prepare(method, problem)
    flops = bench_methods.count_flops(run)
    after = _peak_mib()
    sender.send((after - before, flops * (radii if one_at_a_time else 1)))


def _small(case: Case) -> Case:
    return replace(case, directions=SMALL_DIRECTIONS, examples=SMALL_EXAMPLES)


def _peak_mib(anew: bool = False) -> float:
    """Peak resident memory of this process, which Linux counts in KiB and macOS in bytes.

    `anew`: from now on, where the system can forget what was before; else building the problem may hide it.
    """
    if anew and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))


def main() -> None:
    parser = argparse.ArgumentParser(description="What the exact projected Hessian costs.")
    parser.add_argument("--cases", choices=[*CASES, *CASES["all"]], default="all", help="a group, or a single case")
    parser.add_argument("--output", default="results/benchmarks/curvature.csv")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Of the libraries: torch.jit, and gradients that keep their graph.
    with logs.one_sentence():
        chosen = arguments.cases
        bench(CASES.get(chosen) or {chosen: CASES["all"][chosen]}, arguments.output)


if __name__ == "__main__":
    main()
