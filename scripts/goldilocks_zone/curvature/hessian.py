"""Exact Hessians of the mean loss: on random planes, over sweeps of radii, on spheres, and as products in full space.

For ReLU this is the almost-everywhere Hessian: what automatic differentiation gives, without the kinks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.curvature import arguments, autodiff, dispatch, refusals
from goldilocks_zone.curvature.accumulators import Sums
from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.curvature.dispatch import PlaneCurvature, Rows
from goldilocks_zone.curvature.hessian_vector_products import Products
from goldilocks_zone.curvature.tangents import Ray
from goldilocks_zone.models import modes
from goldilocks_zone.models.problem import Array, Problem
from goldilocks_zone.subspaces import planes


@dataclass(frozen=True)
class Options:
    """Averages of a sweep, its memory, and its handling of overflow.

    examples: how many of the first ones to average over, one result for each number (default: all of them);
    memory_mib: bound of the working memory beside parameters, directions and examples, in MiB; refuse_overflow: whether
    a logit, loss or Hessian that is not finite raises an error, or gives None as the result of its point.
    """

    examples: Sequence[int] | None = None
    memory_mib: float = 1024
    refuse_overflow: bool = True


def plane_hessian(problem: Problem, parameters: Array, directions: Rows, memory_mib: float = 1024) -> PlaneCurvature:
    """Curvature on the plane through `parameters` (D,) spanned by the raw `directions` (d, D), as by `radial_sweep`."""
    return radial_sweep(problem, parameters, [1.0], directions, memory_mib)[0]


def radial_sweep(
    problem: Problem, parameters: Array, scales: Sequence[float], directions: Rows, memory_mib: float = 1024
) -> list[PlaneCurvature]:
    """Curvature at the points α · `parameters` (D,) for each scale α, on planes along the raw `directions` (d, D).

    Directions need not be orthonormal: they are made so, in order, through their Gram matrix. Sparse ones can be given
    with their non-zero entries alone, as a sparse matrix, which saves memory and a pass over all of it.
    `dispatch.path_of` tells the way of computing. Where it is not AUTOMATIC, points are in double precision and
    tangents in that of `directions`; else everything is in the latter. `memory_mib` bounds the working memory beside
    parameters, directions and examples, in MiB.

    Parts of a network's forward pass under `detach` are constants.

    Raises ValueError if the directions are linearly dependent, a logit, a loss or a Hessian is not finite, the network
    mixes examples, changes its parameters, is random, gives other than logits (n, k), has parts under `torch.no_grad`
    or cannot be differentiated twice, a scale is not positive, or sizes or types do not fit.
    """
    points = [(scale, problem.temperature) for scale in scales]
    return [found for (found,) in curvature_at(problem, parameters, points, directions, Options(memory_mib=memory_mib))]


@modes.differentiating
def curvature_at(
    problem: Problem,
    parameters: Array,
    points: Sequence[tuple[float, float]],
    directions: Rows,
    options: Options = Options(),
) -> list[list[PlaneCurvature | None]]:
    """Curvature as by `radial_sweep` at any `points` (scale, temperature), indexed by point and number of examples.

    Temperatures stand in place of the problem's own.
    """
    if not points:
        raise ValueError("no point was asked for: give one scale and one temperature at least")
    scales, temperatures = map(list, zip(*points))
    for scale, temperature in points:
        if not 0 < scale < math.inf:
            raise ValueError(f"the scale {scale} is not positive and finite: a sweep runs outwards along one ray")
        arguments.refuse_not_positive(temperature=temperature, memory_mib=options.memory_mib)
    network, theta = arguments.network(problem.network), arguments.parameters(parameters)
    directions = arguments.plane(directions, theta)
    arguments.refuse_other_size(theta, network, directions.shape[1])
    batches = arguments.Batches(problem, network, theta.to(dispatch.precision(directions)))
    counts = arguments.counts(options.examples, batches.count)
    ends = (scale * theta.double() for scale in {min(scales), max(scales)})
    chain = dispatch.chain_of(problem.loss, network, ends, batches.first)
    path = dispatch.path(chain, theta, len(points))
    directions, sparse = dispatch.prepared(directions, path, theta.device)
    factor = planes.cholesky(directions.cpu().numpy() if sparse is None else sparse)
    factor = torch.as_tensor(factor, device=theta.device)
    if chain is None:
        ray = Ray(autodiff.function(network), theta.to(directions.dtype), scales, directions)
    else:
        ray = Ray(chain, theta.double(), scales, Directions(directions, chain, sparse))

    def begin() -> tuple[Sums, Callable]:
        total = Sums(factor, problem.loss, temperatures, options.refuse_overflow)
        return total, dispatch.adder(path, ray, batches.first, total, options.memory_mib)

    found = dispatch.averages_over(counts, batches, begin)
    return [[found[n][i] for n in counts] for i in range(len(points))]


@modes.differentiating
def sphere_hessian(problem: Problem, parameters: Array, directions: Rows, memory_mib: float = 1024) -> np.ndarray:
    """Riemannian Hessian (d, d) of the mean loss on the sphere |θ| = r through `parameters` (D,).

    On orthonormal directions P tangent to the sphere, made from the raw `directions` (d, D) by taking off their part
    along u = θ/r: PᵀHP − (⟨∇L, θ⟩/r²) I. Arguments and errors as in `plane_hessian`; raises ValueError also if the
    directions and θ are linearly dependent.
    """
    theta = arguments.parameters(parameters)
    directions = arguments.plane(directions, theta)
    arguments.refuse_other_size(theta, arguments.network(problem.network), directions.shape[-1])
    if not isinstance(directions, Tensor):
        directions = torch.as_tensor(directions.toarray(), device=theta.device)
    radius = theta.double().norm()
    if not radius > 0:
        raise ValueError("the parameters are zero, so that no sphere goes through them: give others")
    outward = (theta / radius).to(directions)
    # With u in front, the Cholesky factor takes it off all the others.
    found = plane_hessian(problem, parameters, torch.cat([outward[None], directions]), memory_mib)
    return found.hessian[1:, 1:] - found.radial_derivative / float(radius) ** 2 * np.eye(len(directions))


@modes.differentiating
def hessian_vector_products(
    problem: Problem, parameters: Array, vectors: Array, part: str = "hessian", memory_mib: float = 1024
) -> Array:
    """Products of the Hessian of the mean loss with each row of `vectors` (d, D), shape (d, D).

    By `hessian_products`, for one call, in the precision of `vectors`.
    """
    theta = arguments.parameters(parameters).to(arguments.real(vectors, "vectors").dtype)
    return hessian_products(problem, theta, part, memory_mib)(vectors)


@modes.differentiating
def hessian_products(
    problem: Problem, parameters: Array, part: str = "hessian", memory_mib: float = 1024
) -> Callable[[Array], Array]:
    """The map from vectors (d, D) to products (d, D) with the Hessian of the mean loss at `parameters` (D,).

    `part` is `hessian` or `gauss_newton`. In the precision of the parameters: of fully connected chains from one pass
    over the examples for all calls, where `memory_mib` holds what is kept of it; else by automatic differentiation.
    Products with numpy's vectors are numpy's, in double precision, as `lanczos` takes them. Raises ValueError, and the
    map does, as `radial_sweep` does, or if the part is unknown.
    """
    arguments.refuse_unknown_part(part)
    arguments.refuse_not_positive(memory_mib=memory_mib)
    given = arguments.prepared(problem, parameters)
    chain = dispatch.chain_of(given.loss, given.network, [given.theta], given.batches.first)
    if Products.applies(chain, given.theta, given.batches.count, memory_mib):
        return arguments.of_rows(Products(chain, given, part == "gauss_newton"), given.theta)
    logits, theta = autodiff.function(given.network), given.theta
    refusals.refuse_unfit_logits(logits, theta, given.batches.first, part)
    fitting = autodiff.examples_per_chunk(logits, theta, given.batches.first, memory_mib)

    def products(vectors: Tensor) -> Tensor:
        total = torch.zeros_like(vectors)
        for inputs, labels in given.batches:
            for chunk, targets in dispatch.chunks(given.loss, inputs, labels, fitting):
                step = autodiff.directions_per_chunk(logits, theta, chunk, memory_mib)
                some = Problem(logits, chunk, targets, given.loss, given.temperature)
                if part == "gauss_newton":
                    push = autodiff.gauss_newton_products(some, theta)
                else:
                    push = autodiff.hessian_products(some, theta)
                for start in range(0, len(vectors), step):
                    found = push(vectors[start : start + step])
                    total[start : start + step] += found if part == "gauss_newton" else found[0]
        return total / given.batches.count

    return arguments.of_rows(products, theta)
