"""`make bench`: cost of the largest eigenvalues and eigenvectors of the Hessian in full space.

Writes one row for each case and method, with the columns of benchmarks/curvature.py:

  case    network by its widths at its initialisation, number of examples N and of eigenpairs, then the precision of
          products; all to the same tolerance
  method  engine          top_eigenvectors.top_eigenpairs
          double backward scipy's eigsh over products by reverse over reverse, whose first graph is built once

Both must give the same eigenvalues.
"""

import argparse
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.nn.functional import cross_entropy

from benchmarks import curvature, methods, tools
from goldilocks_zone.curvature import top_eigenvectors
from goldilocks_zone.jobs import failures
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra.lanczos import Search

TOLERANCE, AGREEMENT = 1e-4, 1e-3
ROUNDS, SECONDS_PER_METHOD = 5, 120.0
PRELOADED = ["benchmarks.spectrum"]


@dataclass(frozen=True)
class Case:
    """What is measured."""

    widths: tuple[int, ...]
    examples: int
    count: int
    dtype: torch.dtype = torch.float32


CASES = {
    "784-200-200-10 N=4000 top 30": Case((784, 200, 200, 10), 4000, 30),
    "784-200-200-10 N=1000 top 1": Case((784, 200, 200, 10), 1000, 1),
    "784-200-200-10 N=4000 top 30 float64": Case((784, 200, 200, 10), 4000, 30, torch.float64),
}


def build_problem(case: Case) -> methods.Problem:
    """The network and examples of benchmarks/curvature.py, in the precision of the case."""
    made = curvature.build_problem(curvature.Case(case.widths, examples=case.examples, directions=1))
    made.network.to(case.dtype)
    parts = {name: getattr(made, name).to(case.dtype) for name in ("parameters", "inputs", "directions")}
    return methods.Problem(**{**vars(made), **parts})


def engine(problem: methods.Problem, count: int) -> np.ndarray:
    """Eigenvalues (count,), descending."""
    ours = Problem(problem.network, problem.inputs, problem.labels)
    return top_eigenvectors.top_eigenpairs(ours, problem.parameters, count, Search(tolerance=TOLERANCE))[0]


def double_backward(problem: methods.Problem, count: int) -> np.ndarray:
    """The same by reverse over reverse; from the same start."""
    arrays, parameters = [], list(problem.network.parameters())
    sizes = [each.numel() for each in parameters]
    for piece, parameter in zip(problem.parameters.split(sizes), parameters):
        arrays.append(piece.view(parameter.shape).clone().requires_grad_())
    names = [name for name, _ in problem.network.named_parameters()]
    outputs = torch.func.functional_call(problem.network, dict(zip(names, arrays)), (problem.inputs,))
    gradients = torch.autograd.grad(cross_entropy(outputs, problem.labels), arrays, create_graph=True)
    gradient = torch.cat([each.flatten() for each in gradients])

    def product(vector: np.ndarray) -> np.ndarray:
        direction = torch.as_tensor(vector.ravel(), dtype=gradient.dtype)
        found = torch.autograd.grad(gradient, arrays, direction, retain_graph=True)
        return torch.cat([each.flatten() for each in found]).double().numpy()

    matrix = LinearOperator((len(gradient),) * 2, matvec=product, dtype=np.float64)
    start = stream("top eigenvectors").standard_normal(len(gradient))
    return eigsh(matrix, k=count, which="LA", v0=start, tol=TOLERANCE)[0][::-1]


METHODS: dict[str, Callable] = {"engine": engine, "double backward": double_backward}


def bench(cases: dict[str, Case], path_to_output: str) -> None:
    """Measure every case by both methods, print each measurement and write them all to a CSV.

    Raises ValueError in one sentence if they do not give the same eigenvalues.
    """
    torch.set_num_threads(tools.THREADS)
    tools.warn_if_busy()
    rows = []
    for name, case in cases.items():
        problem = build_problem(case)
        expected, found = (METHODS[method](problem, case.count) for method in METHODS)
        error = np.abs(found - expected).max() / expected[0]
        print(f"{name}: eigenvalues differ by {error:.1e} of the largest, may by {AGREEMENT:.0e}", flush=True)
        if not error <= AGREEMENT:
            raise ValueError(f"both methods differ by {error:.1e} of the largest eigenvalue in the case {name}")
        runs = {method: functools.partial(run, problem, case.count) for method, run in METHODS.items()}
        seconds = tools.seconds_in_turns(runs, ROUNDS, SECONDS_PER_METHOD)
        for method in METHODS:
            measured = tools.in_a_process(_send_memory_and_flops, (case, method), PRELOADED, method)
            rows.append(tools.row(name, method, seconds[method], *measured, seconds["engine"]))
    tools.write(rows, path_to_output)


def _send_memory_and_flops(case: Case, method: str, sender) -> None:
    torch.set_num_threads(tools.THREADS)
    problem = build_problem(case)
    before = tools.peak_mib(anew=True)

    def run() -> None:
        METHODS[method](problem, case.count)

    flops = methods.count_flops(run)
    sender.send((tools.peak_mib() - before, flops))


def main() -> None:
    parser = argparse.ArgumentParser(description="What the largest eigenvalues of the Hessian cost.")
    parser.add_argument("--cases", choices=["all", *CASES], default="all", help="a single case, or all")
    parser.add_argument("--output", default="results/benchmarks/spectrum.csv")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with failures.one_sentence():
        bench(CASES if arguments.cases == "all" else {arguments.cases: CASES[arguments.cases]}, arguments.output)
