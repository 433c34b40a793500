"""`make bench`: cost of the largest eigenvalues and eigenvectors of the full-space Hessian.

Writes one row for each case and method, with the columns of benchmarks/curvature.py. A case is a network, given by its
widths, at its initialisation, with the numbers of examples N and of eigenpairs and the precision of products. All cases
share one tolerance. `double backward` is scipy's eigsh on reverse-over-reverse products whose first graph is built
once. Both methods must give the same eigenvalues.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from benchmarks import curvature, methods, tools
from goldilocks_zone.curvature import top_eigenvectors
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra.lanczos import Search

TOLERANCE, AGREEMENT = 1e-4, 1e-3
PRELOADED = ["benchmarks.spectrum"]


@dataclass(frozen=True)
class Case:
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
    return replace(
        made, **{name: getattr(made, name).to(case.dtype) for name in ("parameters", "inputs", "directions")}
    )


def engine(problem: methods.Problem, count: int) -> np.ndarray:
    """Eigenvalues (count,), descending."""
    return top_eigenvectors.top_eigenpairs(problem.ours, problem.parameters, count, Search(tolerance=TOLERANCE))[0]


def double_backward(problem: methods.Problem, count: int) -> np.ndarray:
    """Eigenvalues by reverse over reverse, from the same start."""
    point = problem.parameters.clone().requires_grad_()
    loss = methods.loss_of(problem.network, problem.inputs, problem.labels)(point)
    (gradient,) = torch.autograd.grad(loss, point, create_graph=True)

    def product(vector: np.ndarray) -> np.ndarray:
        direction = torch.as_tensor(vector.ravel(), dtype=gradient.dtype)
        return torch.autograd.grad(gradient, point, direction, retain_graph=True)[0].double().numpy()

    matrix = LinearOperator((len(gradient),) * 2, matvec=product, dtype=np.float64)
    start = stream("top eigenvectors").standard_normal(len(gradient))
    return eigsh(matrix, k=count, which="LA", v0=start, tol=TOLERANCE)[0][::-1]


METHODS: dict[str, Callable] = {"engine": engine, "double backward": double_backward}


def measure_seconds(name: str, case: Case) -> dict[str, list[float]]:
    """Seconds of all runs of both methods. Raises ValueError in one sentence if their eigenvalues differ."""
    problem = build_problem(case)
    expected, found = (method(problem, case.count) for method in METHODS.values())
    error = np.abs(found - expected).max() / expected[0]
    print(f"{name}: eigenvalues differ by {error:.1e} of the largest, may by {AGREEMENT:.0e}", flush=True)
    if not error <= AGREEMENT:
        raise ValueError(f"both methods differ by {error:.1e} of the largest eigenvalue in the case {name}")
    runs = {method: functools.partial(run, problem, case.count) for method, run in METHODS.items()}
    return tools.seconds_in_turns(runs)


def memory_and_flops(case: Case, method: str) -> tuple[float, int]:
    """Peak memory and flops of a run."""
    problem = build_problem(case)
    before = tools.peak_mib(anew=True)
    flops = methods.count_flops(functools.partial(METHODS[method], problem, case.count))
    return tools.peak_mib() - before, flops


DESCRIPTION = "What the largest eigenvalues of the Hessian cost."
bench = functools.partial(tools.bench, measure_seconds, memory_and_flops, PRELOADED)
main = functools.partial(tools.main, bench, {"all": CASES}, "spectrum", DESCRIPTION)
