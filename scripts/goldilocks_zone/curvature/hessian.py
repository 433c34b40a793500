"""Exact Hessians of the mean loss: on random planes, over sweeps of radii, on spheres, as products in full space.

For ReLU, this is the Hessian that exists almost everywhere, which automatic differentiation computes, too. It does not
contain the contribution of kinks. H = G + H′ is the sum of the Gauss–Newton part G, which has the first derivatives of
the logits, and of H′, which has their second derivatives.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.curvature import arguments, autodiff, dispatch, working_memory
from goldilocks_zone.curvature.accumulators import Sums
from goldilocks_zone.curvature.arguments import Rows
from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.curvature.dispatch import PlaneCurvature
from goldilocks_zone.curvature.graph_tangents import Traced
from goldilocks_zone.curvature.hessian_vector_products import Products
from goldilocks_zone.curvature.tangents import Ray
from goldilocks_zone.models import kernels
from goldilocks_zone.models.problem import Array, Problem, refuse_not_positive
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import lanczos
from goldilocks_zone.subspaces import planes

PARTS = ("hessian", "gauss_newton", "residual")


@dataclass(frozen=True)
class Options:
    """Options of a sweep: averages, memory, and handling of overflow.

    examples: numbers n of examples; for each n, curvature is averaged over the first n examples (default: over all).
    memory_mib: as in `radial_sweep`. refuse_overflow: raise ValueError if a logit, loss or Hessian is not finite; if
    false, the result at such a point is None.
    """

    examples: Sequence[int] | None = None
    memory_mib: float | None = None
    refuse_overflow: bool = True


def plane_hessian(
    problem: Problem, parameters: Array, directions: Rows, memory_mib: float | None = None
) -> PlaneCurvature:
    """Curvature on the plane through `parameters` (D,) along the raw `directions` (d, D).

    Arguments and errors are those of `radial_sweep`.
    """
    return radial_sweep(problem, parameters, [1.0], directions, memory_mib)[0]


def radial_sweep(
    problem: Problem, parameters: Array, scales: Sequence[float], directions: Rows, memory_mib: float | None = None
) -> list[PlaneCurvature]:
    """Curvature at the points α · `parameters` (D,) for each scale α, on planes along the raw `directions` (d, D).

    Raw directions need not be orthonormal: they are orthonormalised in order, through their Gram matrix. For a chain of
    layers, a sparse matrix of directions saves memory. `dispatch.path_of` returns the name of the algorithm. Automatic
    differentiation (`dispatch.AUTOMATIC`) runs in the precision of `directions`; other algorithms compute activations
    and adjoints in double precision, and tangents in the precision of `directions`. `memory_mib` bounds the working
    memory in MiB, not counting parameters, directions and examples (default: 1 GiB, on a GPU half of its free memory up
    to 8 GiB). Detached parts of the forward pass are treated as constants.

    Raises ValueError if the directions are linearly dependent; if a logit, a loss or a Hessian is not finite; if the
    network mixes examples, changes its parameters, is random, does not return logits (n, k), has parts under
    `torch.no_grad` or cannot be differentiated twice; if a scale is not positive; or if sizes or types do not fit.
    """
    points = [(scale, problem.temperature) for scale in scales]
    return [found for (found,) in curvature_at(problem, parameters, points, directions, Options(memory_mib=memory_mib))]


@kernels.differentiating
def curvature_at(
    problem: Problem,
    parameters: Array,
    points: Sequence[tuple[float, float]],
    directions: Rows,
    options: Options = Options(),
) -> list[list[PlaneCurvature | None]]:
    """Curvature at `points` (scale, temperature), on planes along the raw `directions` (d, D); see `radial_sweep`.

    A point lies at scale · `parameters` (D,), and its temperature replaces that of the problem. Returns for each point
    a list with one result for each number in `options.examples`. Raises ValueError as `radial_sweep` does, and if there
    is no point or a temperature is not positive.
    """
    if not points:
        raise ValueError("there are no points: give at least one pair of scale and temperature")
    scales, temperatures = map(list, zip(*points))
    for scale, temperature in points:
        if not 0 < scale < math.inf:
            raise ValueError(f"the scale {scale} is not positive and finite: give positive scales")
        refuse_not_positive(temperature, "temperature")
    network, theta = arguments.network(problem.network), arguments.parameters(parameters)
    memory_mib = working_memory.budget(options.memory_mib, theta)
    plane = arguments.plane(directions, theta)
    arguments.refuse_other_size(theta, network, plane)
    batches = arguments.Prepared(problem, network, theta.to(torch.as_tensor(plane.data).dtype))
    counts = _counts(options.examples, batches.count)
    ends = (scale * theta.double() for scale in {min(scales), max(scales)})
    form = dispatch.form_of(batches.loss, network, ends, batches.first)
    path = dispatch.path(form, theta, len(points))
    rows, sparse = dispatch.prepared(plane, path, theta.device)
    factor = torch.as_tensor(planes.cholesky(rows if sparse is None else sparse), device=theta.device)
    if form is None:
        ray = Ray(autodiff.function(network), theta.to(torch.as_tensor(rows.data).dtype), scales, rows)
    elif isinstance(form, Traced):
        ray = Ray(form, theta.double(), scales, Directions(rows, form.layers, sparse))
    else:
        ray = Ray(form, theta.double(), scales, Directions(rows, form, sparse))

    def begin() -> tuple[Sums, Callable]:
        total = Sums(factor, batches.loss, temperatures, options.refuse_overflow)
        return total, dispatch.adder(path, ray, batches.first, total, memory_mib)

    found = dispatch.averages_over(counts, batches, begin)
    return [[found[n][i] for n in counts] for i in range(len(points))]


def _counts(given: Sequence[int] | None, available: int) -> list[int]:
    """Numbers n of first examples to average over (default: all). Raises ValueError unless 1 ≤ each n ≤ `available`."""
    found = [available] if given is None else given
    if isinstance(found, Integral) or not all(isinstance(each, Integral) for each in found):
        raise ValueError(
            f"examples must be a list of whole numbers, not {given!r}: to average over the first 100, give [100]"
        )
    found = list(map(int, found))
    if max(found, default=0) > available:
        raise ValueError(f"{max(found)} examples were asked for, and {available} given: ask for {available} at most")
    if min(found, default=0) < 1:
        raise ValueError(arguments.NO_EXAMPLES)
    return found


@kernels.differentiating
def sphere_hessian(
    problem: Problem, parameters: Array, directions: Rows, memory_mib: float | None = None
) -> np.ndarray:
    """Riemannian Hessian (d, d) of the mean loss on the sphere |θ| = r through `parameters` (D,).

    This is PᵀHP − (⟨∇L, θ⟩/r²) I, for the mean loss L with the Hessian H at the parameters θ. The columns of P are
    orthonormal directions tangent to the sphere, obtained from the raw `directions` (d, D). `memory_mib` is as in
    `radial_sweep`. Raises ValueError as `radial_sweep` does, and if the directions and θ are linearly dependent or θ is
    zero.
    """
    theta = arguments.parameters(parameters)
    plane = arguments.plane(directions, theta)
    arguments.refuse_other_size(theta, arguments.network(problem.network), plane)
    rows = plane if isinstance(plane, Tensor) else torch.as_tensor(plane.toarray(), device=theta.device)
    radius = theta.double().norm()
    if not radius > 0:
        raise ValueError(
            "all parameters are zero, so that no sphere around zero goes through them: give other parameters"
        )
    outward = (theta / radius).to(rows)
    # With the radial direction first, the Cholesky factor removes it from all others.
    found = plane_hessian(problem, parameters, torch.cat([outward[None], rows]), memory_mib)
    return found.hessian[1:, 1:] - found.radial_derivative / float(radius) ** 2 * np.eye(len(rows))


@kernels.differentiating
def hessian_vector_products(
    problem: Problem, parameters: Array, vectors: Array, part: str = "hessian", memory_mib: float | None = None
) -> Array:
    """Products (d, D) of the Hessian of the mean loss with `vectors` (d, D), in the precision of the vectors.

    The Hessian, or the `part` of it, is taken at `parameters` (D,). The other arguments and the errors are those of
    `hessian_products`.
    """
    theta = arguments.parameters(parameters).to(arguments.real(vectors, "vectors").dtype)
    return hessian_products(problem, theta, part, memory_mib)(vectors)


@kernels.differentiating
def hessian_products(
    problem: Problem, parameters: Array, part: str = "hessian", memory_mib: float | None = None
) -> Callable[[Array], Array]:
    """Map from vectors (d, D) to products (d, D) with the Hessian of the mean loss at `parameters` (D,).

    `part` is `hessian` for H, `gauss_newton` for G or `residual` for H′ = H − G. Products are computed in the precision
    of the parameters. `memory_mib` bounds the working memory, as in `radial_sweep`. If they fit into this memory,
    results of a single pass over the examples are kept for all calls of the map: activations and adjoints of fully
    connected chains, the autograd graphs of other networks. NumPy vectors give NumPy products in double precision, as
    `lanczos` requires. This function and the map raise ValueError as `radial_sweep` does; this function also raises it
    if the part is unknown.
    """
    if part not in PARTS:
        raise ValueError(f"part {part!r} of the Hessian is unknown: use one of {', '.join(PARTS)}")
    given = arguments.prepared(problem, parameters)
    memory_mib = working_memory.budget(memory_mib, given.theta)
    chain = dispatch.chain_of(given.loss, given.network, [given.theta], given.first)
    if chain is not None and Products.applies(chain, given.theta, given.count, memory_mib):
        return arguments.of_rows(Products(chain, given, part, memory_mib), given.theta)
    logits, theta = given.logits(part), given.theta
    fitting = working_memory.examples_per_chunk(logits, theta, given.first, memory_mib)

    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in given:
            yield from dispatch.chunks(given.loss, *batch, fitting)

    def prepared() -> Iterator[tuple[int, Callable[[Tensor], Tensor]]]:
        """Yield, for each chunk of examples, a pair of a number and a map from vectors to their products.

        The number says how many vectors fit into memory at once.
        """
        for some in chunks():
            problem = Problem(logits, *some, given.loss, given.temperature)
            step = working_memory.directions_per_chunk(logits, theta, problem.inputs, memory_mib)
            yield step, autodiff.products(problem, theta, part)

    sizes = [len(inputs) for inputs, _ in chunks()]
    kept = list(prepared()) if working_memory.can_be_kept(logits, theta, given.first, sizes, memory_mib) else None

    def products(vectors: Tensor) -> Tensor:
        total = torch.zeros_like(vectors)
        for step, push in kept or prepared():
            for some, those in zip(vectors.split(step), total.split(step)):
                those += push(some)
        return total / given.amount

    return arguments.of_rows(products, theta)


@kernels.differentiating
def spectral_density(
    problem: Problem, parameters: Array, steps: int = 30, probes: int = 10, memory_mib: float | None = None
) -> lanczos.Density:
    """Spectral density of the Hessian of the mean loss at `parameters` (D,), by Lanczos iteration from random vectors.

    There are `probes` Gaussian vectors, and each takes `steps` Lanczos steps. `memory_mib` is as in `hessian_products`.
    """
    vectors = stream("spectral density").standard_normal((probes, len(parameters)))
    return lanczos.spectral_density(hessian_products(problem, parameters, memory_mib=memory_mib), vectors, steps)
