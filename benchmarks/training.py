"""`make bench`: cost of training an ensemble in random subspaces, compared with sequential runs.

Writes one row for each case and method, with the columns of benchmarks/curvature.py. A case trains 784-200-200-10 with
Adam at batch size 64 from 25 radii and 3 seeds for STEPS steps each, on a plane of d dimensions (dense or sparse
columns) or in the full space.

  engine      all radii of a seed share a plane M, and one product with M yields the parameters at all radii; on sparse
              planes, outputs of the first layer are computed without its weights
  plain loop  one run after another: parameters θ_0 + Mw by one product (CSR for sparse columns, with a transposed
              copy), the network as torch.nn layers, autograd, torch.optim.Adam on the coordinates w
  matmul      only the engine's matrix products: layers forward and backward, M and its transpose

The coordinates of the plain loop after two steps are compared with those of the engine, and wrong ones stop the
benchmark. `matmul` computes no coordinates.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from benchmarks import methods, tools
from goldilocks_zone.models import problem as models_problem
from goldilocks_zone.subspaces import constraints, projections
from goldilocks_zone.subspaces.labels import Plane
from goldilocks_zone.training import batches, ensembles, loop

WIDTHS = (784, 200, 200, 10)
BATCH, STEPS, RATE = 64, 10, 0.003
EXAMPLES = 60 * BATCH
# Largest root mean square difference of the coordinates after two steps of Adam in float32, relative to their change.
# It is far above rounding, because a first step of Adam is g/|g|, whose sign is random if the gradient g is a rounding
# error.
TOLERANCE = 1e-3
PRELOADED = ["benchmarks.training", "torch._dynamo"]


@dataclass(frozen=True)
class Case:
    """Training from several radii and seeds, on a plane of a `dimension` or, if `kind` is None, in the whole space.

    kind: whether the columns of the plane are dense or sparse.
    """

    kind: str | None
    dimension: int = 0
    radii: int = 25
    seeds: int = 3


CASES = {
    "784-200-200-10 d=100 dense": Case("dense", 100),
    "784-200-200-10 d=500 dense": Case("dense", 500),
    "784-200-200-10 d=100 sparse": Case("sparse", 100),
    "784-200-200-10 d=500 sparse": Case("sparse", 500),
    "784-200-200-10 full": Case(None),
}


@dataclass(frozen=True)
class Problem:
    """Examples and a network, and for each seed a subset of parameter space and the starting points.

    points: for each seed, the parameters (radii, D) from which training starts.
    """

    case: Case
    module: nn.Module
    inputs: Tensor
    labels: Tensor
    subsets: list[constraints.Subset]
    points: list[Tensor]


def build_problem(case: Case) -> Problem:
    """Build the problem of a case from Gaussian images, random labels, and starts at radii from 0.01 to 100 r_X.

    Starts are Glorot initialisations times a factor.
    """
    generator = torch.Generator().manual_seed(0)
    module = methods.dense(WIDTHS).requires_grad_(False)
    shapes = [tuple(parameter.shape) for parameter in module.parameters()]
    scales, parts, starts = torch.logspace(-2, 2, case.radii), [], []
    for seed in range(case.seeds):
        for tensor in module.parameters():
            nn.init.zeros_(tensor) if tensor.ndim < 2 else nn.init.xavier_normal_(tensor, generator=generator)
        points = scales[:, None] * nn.utils.parameters_to_vector(module.parameters())
        if case.kind is None:
            parts.append(constraints.full(points, shapes, fixed=False))
        else:
            plane, eta = Plane(case.dimension, case.kind), np.ones(points.shape[1])
            projection = projections.make(plane, shapes, eta, np.random.default_rng(seed))
            parts.append(constraints.plane(projection, points))
        starts.append(points)
    inputs = torch.randn(EXAMPLES, 1, 28, 28, generator=generator)
    return Problem(case, module, inputs, torch.randint(10, (EXAMPLES,), generator=generator), parts, starts)


def _ensembles(problem: Problem, steps: int) -> list[ensembles.Ensemble]:
    """This package's ensembles, to train for `steps`: one for each seed or, in the whole space, one for all seeds."""
    parts, radii = problem.subsets, problem.case.radii
    names = [[("batches", seed)] for seed in range(len(parts))]
    if problem.case.kind is None:
        parts = [constraints.Subset(torch.cat([each.start for each in parts]), parts[0].shapes)]
        names = [[name[0] for name in names for _ in range(radii)]]
    members = len(parts[0].start)
    options = ensembles.Options(steps, BATCH, torch.full((members,), RATE), torch.ones(members))
    ours = models_problem.Problem(problem.module, problem.inputs, problem.labels)
    return [ensembles.Ensemble(ours, part, options, name) for part, name in zip(parts, names)]


def engine(problem: Problem, steps: int) -> Tensor:
    """Coordinates (seeds · radii, d) after `steps` of training by this package's engine; in the whole space, d = D."""
    found = []
    for ensemble in _ensembles(problem, steps):
        loop.train(ensemble, [steps], lambda step, state: {})
        found.append(ensemble.coordinates)
    return torch.cat(found)


def plain_loop(problem: Problem, steps: int) -> Tensor:
    """Coordinates like those of `engine` after `steps` of training, from runs that are trained one after another."""
    found = []
    for seed, (subset, points) in enumerate(zip(problem.subsets, problem.points)):
        forward, backward = _products(subset.projection)
        for start in points:
            whole = subset.projection is None
            w = nn.Parameter(start.clone() if whole else torch.zeros(subset.projection.dimension))
            optimiser = torch.optim.Adam([w], lr=RATE)
            for step in range(steps):
                chosen = batches.batch([("batches", seed)], step, BATCH, EXAMPLES)
                with torch.no_grad():
                    flat = w.clone() if whole else forward(w).add_(start)
                loss = methods.loss_of(problem.module, problem.inputs[chosen], problem.labels[chosen])
                (gradient,) = torch.autograd.grad(loss(flat.requires_grad_()), flat)
                w.grad = gradient if whole else backward(gradient)
                optimiser.step()
            found.append(w.detach())
    return torch.stack(found)


def _products(projection: projections.Projection | None) -> tuple[Callable, Callable]:
    """Two functions for the plain loop, from w (d,) to M w (D,) and from g (D,) to Mᵀ g (d,).

    M is the matrix (D, d) of the `projection`. Without one, in the whole space, both are None.
    """
    if isinstance(projection, projections.Dense):
        return lambda w: w @ projection.rows, lambda g: projection.rows @ g
    if isinstance(projection, projections.Sparse):
        rows = projection.rows
        indices = (each.numpy() for each in (rows.values(), rows.col_indices(), rows.crow_indices()))
        matrix = scipy.sparse.csr_array(tuple(indices), rows.shape)
        columns = projections.sparse_tensor(matrix.T.tocsr(), rows)
        return lambda w: columns @ w, lambda g: rows @ g
    return None, None


def matmul(problem: Problem, steps: int) -> None:
    """Compute only the matrix products of `steps` steps of the engine, on random numbers; returns no coordinates."""
    images = torch.randn(BATCH, WIDTHS[0])
    for ensemble in _ensembles(problem, steps):
        members, coordinates = len(ensemble.coordinates), ensemble.coordinates.clone()
        values = [torch.randn(members, BATCH, width) for width in WIDTHS]
        own = len(ensemble.shuffles) > 1
        for _ in range(steps):
            behind = ensemble.first_layer.behind(images) if ensemble.first_layer else None
            subset, gradients = behind or ensemble.subset, [values[1].mT.contiguous()] if behind else []
            arrays = (subset.projection or subset).forward(coordinates)
            for number, weight in enumerate(arrays[1::2] if behind else arrays[::2], start=len(gradients)):
                before = values[number] if number or own else values[0][:1].expand(members, -1, -1)
                before @ weight.mT
                gradients += [values[number + 1].mT @ before, values[number + 1].sum(1)]
                if number:
                    values[number + 1] @ weight
            subset.transposed(gradients)


METHODS = {"engine": engine, "plain loop": plain_loop, "matmul": matmul}


def measure_seconds(name: str, case: Case) -> dict[str, list[float]]:
    """Check the methods' results on the `case` with this `name`, see `compare`, and measure the seconds of all runs.

    Returns the seconds of each method in the form of `tools.seconds_in_turns`.
    """
    problem = build_problem(case)
    compare(name, problem)
    runs = {method: functools.partial(run, problem, STEPS) for method, run in METHODS.items()}
    return tools.seconds_in_turns(runs)


def compare(name: str, problem: Problem) -> None:
    """Run all methods for two steps, as a warm-up and to compare the plain loop with the engine.

    Raises ValueError in one sentence if their coordinates differ by more than TOLERANCE.
    """
    expected, found = engine(problem, 2), plain_loop(problem, 2)
    start = torch.cat([each.start for each in problem.subsets])
    error = float((found - expected).square().mean().sqrt() / (expected - start).square().mean().sqrt())
    matmul(problem, 2)
    print(f"{name}: coordinates of the plain loop differ by {error:.1e}, may by {TOLERANCE:.0e}", flush=True)
    if not error <= TOLERANCE:
        raise ValueError(f"the plain loop differs from the engine by {error:.1e} in the case {name}: one is wrong")


def memory_and_flops(case: Case, method: str) -> tuple[float, int]:
    """Peak memory in MiB that one step of a `method` adds to a process with its inputs, and flops of STEPS steps."""
    METHODS[method](build_problem(replace(case, radii=1, seeds=1)), 1)
    problem = build_problem(case)
    before = tools.peak_mib(anew=True)
    flops = methods.count_flops(functools.partial(METHODS[method], problem, 1), plain=True)
    return tools.peak_mib() - before, flops * STEPS


bench = functools.partial(tools.bench, measure_seconds, memory_and_flops, PRELOADED)
main = functools.partial(tools.main, bench, {"all": CASES}, "training", "What training in random subspaces costs.")
