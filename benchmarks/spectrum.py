"""`make bench`: cost of the largest eigenvalues and eigenvectors of the full-space Hessian.

Writes one row for each case and method, with the columns of benchmarks/curvature.py. A case is a network at its
initialisation, given by its widths or its name in benchmarks/networks.py, with the number of examples N, the number of
eigenpairs, and the precision and device of Hessian-vector products. All cases share one tolerance. The engine is
compared with scipy's eigsh on products of curvlinops, and on products by reverse over reverse whose first graph is
built once, as in PyHessian (`double backward`). All methods must give the same eigenvalues.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

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
    name: str = ""
    left_out: tuple[str, ...] = ()
    device: str = "cpu"


CASES = {
    "784-200-200-10 N=4000 top 30": Case((784, 200, 200, 10), 4000, 30),
    "784-200-200-10 N=1000 top 1": Case((784, 200, 200, 10), 1000, 1),
    "784-200-200-10 N=4000 top 30 float64": Case((784, 200, 200, 10), 4000, 30, torch.float64),
    "SmallCNN N=1000 top 5": Case((), 1000, 5, name="SmallCNN"),
    # The products of curvlinops are wrong with layer normalisation, see benchmarks/curvature.py.
    "normalised N=1000 top 5": Case((), 1000, 5, name="normalised", left_out=("curvlinops",)),
}


def build_problem(case: Case) -> methods.Problem:
    """Build the problem of a case as in benchmarks/curvature.py, in the precision and on the device of the case."""
    like = curvature.Case(case.widths, name=case.name, examples=case.examples, directions=1, device=case.device)
    made = curvature.build_problem(like)
    made.network.to(case.dtype)
    return replace(
        made, **{name: getattr(made, name).to(case.dtype) for name in ("parameters", "inputs", "directions")}
    )


def engine(problem: methods.Problem, count: int) -> np.ndarray:
    """The `count` largest eigenvalues of the Hessian, descending, by this package's engine."""
    return top_eigenvectors.top_eigenpairs(problem.ours, problem.parameters, count, Search(tolerance=TOLERANCE))[0]


def double_backward(problem: methods.Problem, count: int) -> np.ndarray:
    """Eigenvalues as from `engine`, by eigsh on reverse-over-reverse products, from the engine's starting vector."""
    point = problem.parameters.clone().requires_grad_()
    loss = methods.loss_of(problem.network, problem.inputs, problem.labels)(point)
    (gradient,) = torch.autograd.grad(loss, point, create_graph=True)
    return _largest(lambda vector: torch.autograd.grad(gradient, point, vector, retain_graph=True)[0], problem, count)


def curvlinops(problem: methods.Problem, count: int) -> np.ndarray:
    """Eigenvalues as from `engine`, by eigsh on curvlinops' HessianLinearOperator, from the engine's start vector."""
    from curvlinops import HessianLinearOperator

    data = [(problem.inputs, problem.labels)]
    weights = list(problem.network.parameters())
    operator = HessianLinearOperator(problem.network, nn.CrossEntropyLoss(), weights, data, check_deterministic=False)
    return _largest(lambda vector: operator @ vector, problem, count)


def _largest(products: Callable[[torch.Tensor], torch.Tensor], problem: methods.Problem, count: int) -> np.ndarray:
    size = len(problem.parameters)

    def product(vector: np.ndarray) -> np.ndarray:
        return products(torch.as_tensor(vector.ravel()).to(problem.parameters)).detach().double().cpu().numpy()

    matrix = LinearOperator((size, size), matvec=product, dtype=np.float64)
    start = stream("top eigenvectors").standard_normal(size)
    return eigsh(matrix, k=count, which="LA", v0=start, tol=TOLERANCE)[0][::-1]


# Methods by their names in the CSV. Results of the first method are the reference for the others.
METHODS: dict[str, Callable] = {"engine": engine, "double backward": double_backward, "curvlinops": curvlinops}


def measure_seconds(name: str, case: Case) -> dict[str, list[float]]:
    """Seconds of all runs of each method on the `case` with this `name`, in the form of `tools.seconds_in_turns`.

    Raises ValueError in one sentence if the eigenvalues of the methods differ.
    """
    problem = build_problem(case)
    left_out = set(methods.METHODS).difference(methods.installed()).union(case.left_out)
    runs = {
        method: functools.partial(run, problem, case.count) for method, run in METHODS.items() if method not in left_out
    }
    expected, *others = (run() for run in runs.values())
    error = max(np.abs(found - expected).max() for found in others) / expected[0]
    print(f"{name}: eigenvalues differ by {error:.1e} of the largest, may by {AGREEMENT:.0e}", flush=True)
    if not error <= AGREEMENT:
        raise ValueError(f"the methods differ by {error:.1e} of the largest eigenvalue in the case {name}")
    return tools.seconds_in_turns(runs)


def memory_and_flops(case: Case, method: str) -> tuple[float, int]:
    """Peak memory in MiB that one run of a `method` adds to a process with its inputs, and the flops of this run."""
    problem = build_problem(case)
    before = tools.peak_mib(anew=True, device=case.device)
    flops = methods.count_flops(functools.partial(METHODS[method], problem, case.count))
    return tools.peak_mib(device=case.device) - before, flops


DESCRIPTION = "What the largest eigenvalues of the Hessian cost."
bench = functools.partial(tools.bench, measure_seconds, memory_and_flops, PRELOADED)
main = functools.partial(tools.main, bench, {"all": CASES}, "spectrum", DESCRIPTION, devices=("cpu", "cuda"))
