"""Choice of the fastest exact algorithm for plane curvature, and averages over chunks of examples."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from goldilocks_zone.curvature import (
    accumulators,
    arguments,
    autodiff,
    graph_degrees,
    graph_tangents,
    homogeneous_sweep,
    tangents,
    working_memory,
)
from goldilocks_zone.curvature.accumulators import Sums
from goldilocks_zone.curvature.arguments import Plane
from goldilocks_zone.curvature.graph_tangents import Traced
from goldilocks_zone.curvature.tangents import Ray
from goldilocks_zone.models import chains, kernels, losses
from goldilocks_zone.models.problem import Array, Problem
from goldilocks_zone.spectra import summaries
from goldilocks_zone.subspaces import planes

HOMOGENEOUS, SHARED = "homogeneous sweep", "tangents with shared directions"
POINTWISE, GRAPH = "tangents and one adjoint", "tangents and one adjoint through a graph"
GRAPH_SWEEP = "homogeneous sweep through a graph"
GRAPHS = GRAPH, GRAPH_SWEEP
AUTOMATIC = "forward over reverse"
Form = tuple | Traced | None  # a network as a chain of layers, as a graph, or as neither


@dataclass(frozen=True)
class PlaneCurvature:
    """Second-order expansion of the mean loss over n examples on a plane of d orthonormal directions.

    gauss_newton: the Gauss–Newton part G of the Hessian H = G + H′, shape (d, d). residual: H′, with the second
    derivatives of the logits, shape (d, d). gradient: the gradient in the plane, shape (d,). effective_examples: the
    effective number (Σt)²/Σt² of examples, where t is the trace of an example's G on the first 1 … d directions, shape
    (d,); NaN if the loss couples examples. loss: mean over examples, in nats for cross-entropy. logits_std: standard
    deviation (k − 1 degrees of freedom) of an example's k logits, as a root mean square over examples.
    radial_derivative: ⟨∇L, θ⟩ of the mean loss L at the point θ. zero_logits: share of the logits that are exactly
    zero.

    The next three fields use the softmax output p at the temperature of the point, its mean Q̂ over examples, and the
    class frequencies Q of the examples (Vysogorets et al. 2024). entropy: mean entropy of p over examples, in nats.
    prior_mismatch: ‖Q − Q̂‖₂. softmax_ratio: Γ = Tr(M)/‖M‖_F, where M is the mean of diag p − ppᵀ over examples; 1 if M
    vanishes.

    The last two fields are root mean squares, over classes and orthonormal directions, of derivatives of the logits
    along the directions. class_gradient: σ_C, of the mean of the derivative over examples; its square is corrected for
    the finite number of examples by subtracting σ_E²/n. example_gradient: σ_E, of the deviations of examples from this
    mean.
    """

    gauss_newton: np.ndarray
    residual: np.ndarray
    gradient: np.ndarray
    effective_examples: np.ndarray
    loss: float
    logits_std: float
    radial_derivative: float
    zero_logits: float
    entropy: float
    prior_mismatch: float
    softmax_ratio: float
    class_gradient: float
    example_gradient: float

    @property
    def hessian(self) -> np.ndarray:
        """H = G + H′, shape (d, d)."""
        return self.gauss_newton + self.residual


@kernels.differentiating
def path_of(problem: Problem, parameters: Array, points: int) -> str:
    """Name of the fastest exact algorithm for the curvature of a problem at several points on a ray.

    The points are α · `parameters` (D,) for several scales α; `points` is their number. The names are constants of this
    module. HOMOGENEOUS (`homogeneous_sweep`), SHARED and POINTWISE (`tangents`, at several points and at one) are
    algorithms for chains of layers. GRAPH_SWEEP and GRAPH (`graph_tangents`, with and without the use of homogeneity)
    are for graphs of operations. AUTOMATIC is automatic differentiation.
    """
    given = arguments.prepared(problem, parameters, labelled=False)
    return path(form_of(given.loss, given.network, [given.theta], given.first), given.theta, points)


def path(form: Form, theta: Tensor, points: int) -> str:
    """Name of the fastest exact algorithm for curvature at several points on the ray through θ (D,).

    `form` is the network as returned by `form_of`, and `points` the number of points.
    """
    if form is None:
        return AUTOMATIC
    if isinstance(form, Traced):
        return GRAPH_SWEEP if points > 1 and graph_degrees.of(form.graph, theta) else GRAPH
    if points == 1:
        return POINTWISE
    return HOMOGENEOUS if homogeneous_sweep.applies(form, theta) else SHARED


def chain_of(loss: losses.Loss, network: arguments.Network, points: Iterable[Tensor], inputs: Tensor) -> tuple | None:
    """Chain of layers that computes the logits of `network`; None if there is no such chain.

    The chain must reproduce the logits and gradients of the network at each of the `points` (D,), on a few of the
    `inputs` (n, …). The result is also None if the loss couples examples.
    """
    return None if loss.couples_examples else chains.matching(network, points, inputs)


def form_of(loss: losses.Loss, network: arguments.Network, points: Iterable[Tensor], inputs: Tensor) -> Form:
    """Chain of layers or, failing that, graph of operations that computes the logits of `network`.

    A chain or graph must reproduce the logits and gradients of the network at the `points` (D,), on a few of the
    `inputs` (n, …). The result is None if neither does, or if the loss couples examples.
    """
    if loss.couples_examples:
        return None
    points = list(points)
    return chains.matching(network, points, inputs) or graph_tangents.traced(network, points, inputs)


def prepared(directions: Plane, path: str, device: torch.device) -> tuple[Plane, scipy.sparse.csr_array | None]:
    """Directions (d, D) in the format that the algorithm named `path` takes, and as a sparse matrix or None.

    The first result is a tensor on the `device`. On a CPU, it is instead a sparse matrix if `directions` are one with
    few non-zero entries and the algorithm is one for chains of layers. The second result is in double precision. It is
    None if many entries are non-zero, and for dense directions on a GPU, where a dense product is faster than finding
    the few non-zero entries.
    """
    if isinstance(directions, Tensor):
        return directions, planes.as_sparse(directions.numpy()) if device.type == "cpu" else None
    rows: Any = directions  # SciPy does not declare the types of its matrices.
    few = rows.nnz < planes.SPARSE_BELOW * math.prod(rows.shape)
    sparse = rows.astype(np.float64) if few else None
    if device.type == "cpu":
        return rows if few and path not in (*GRAPHS, AUTOMATIC) else torch.as_tensor(rows.toarray()), sparse
    # Transfer only the non-zero entries to the device.
    found = torch.zeros(rows.shape, dtype=torch.as_tensor(rows.data).dtype, device=device)
    places = (torch.as_tensor(each, dtype=torch.int64, device=device) for each in rows.tocoo().coords)
    return found.index_put_(tuple(places), torch.as_tensor(rows.data, device=device)), sparse


def averages_over(
    counts: Sequence[int], batches: arguments.Prepared, begin: Callable[[], tuple[Sums, Callable]]
) -> dict[int, list[PlaneCurvature | None]]:
    """Curvature at each point, averaged over the first n examples of `batches`, for each n in `counts`.

    Returns a dictionary from n to a list over points. `begin` starts a new average: it returns empty sums over all
    points, and a function that takes inputs and labels of examples and adds these examples to the sums. If averages at
    a point are not finite, the list has None there; ValueError is raised instead if `refuse_overflow` of the sums is
    true.
    """
    left, found, (total, add) = sorted(set(counts)), {}, begin()
    for inputs, labels in batches:
        start = 0
        while left and start < len(inputs):
            stop = min(len(inputs), start + left[0] - total.count)
            add(inputs[start:stop], labels[start:stop])
            total.counted(labels[start:stop])
            start = stop
            if total.count == left[0]:
                found[left.pop(0)] = _averages(total)
                if total.loss.couples_examples:
                    start, (total, add) = 0, begin()
        if not left:
            break
    return found


def adder(path: str, ray: Ray, inputs: Tensor, total: Sums, memory_mib: float) -> Callable[[Tensor, Tensor], None]:
    """Function that takes inputs and labels of examples, and adds their derivatives at the points of `ray` to `total`.

    `path` is the name of the algorithm. `inputs`, a sample of the examples, have the shape from which the sizes of
    chunks are planned so that working memory stays below `memory_mib`.
    """
    if path == AUTOMATIC:
        return _automatic_adder(ray, inputs, total, memory_mib)
    if path in GRAPHS:
        return graph_tangents.adder(ray, inputs, total, memory_mib)
    examples, step = tangents.plan(ray, inputs, path == HOMOGENEOUS, memory_mib)

    def add(inputs, labels):
        for chunk, targets in zip(inputs.split(examples), labels.split(examples)):
            if path == HOMOGENEOUS:
                homogeneous_sweep.add_chunk(ray, chunk.double(), targets, total)
            else:
                tangents.add_chunk(ray, chunk.double(), targets, total, step)

    return add


def _automatic_adder(ray: Ray, inputs: Tensor, total: Sums, memory_mib: float) -> Callable[[Tensor, Tensor], None]:
    """Function that takes inputs and labels, and adds them to the sums `total` by automatic differentiation.

    The arguments are those of `adder`. The function computes in the precision of the directions. Raises ValueError if
    automatic differentiation would give no correct Hessian of the network.
    """
    logits, theta, dtype = ray.network, ray.theta, ray.directions.dtype
    inputs = arguments.in_precision(inputs, dtype)
    autodiff.refuse_unfit_logits(logits, theta, inputs)
    fitting = working_memory.examples_per_chunk(logits, theta, inputs, memory_mib)

    def add(inputs, labels):
        inputs, labels = (arguments.in_precision(each, dtype) for each in (inputs, labels))
        for chunk, targets in chunks(total.loss, inputs, labels, fitting):
            step = working_memory.directions_per_chunk(logits, theta, chunk, memory_mib)
            for number, scale in enumerate(ray.scales):
                problem = Problem(logits, chunk, targets, total.loss, total.temperatures[number].item())
                _add_point(problem, scale * theta, ray.directions, step, total, slice(number, number + 1))

    return add


def _add_point(problem: Problem, theta: Tensor, directions: Tensor, step: int, total: Sums, point: slice) -> None:
    """Add the derivatives for all examples of a problem to the sums `total` at one point, θ (D,).

    The network of the problem is a logits function. `directions` (d, D) are raw, and `step` of them are pushed at a
    time. `point` is the slice of length one that selects the point in the sums.
    """
    push, columns, along = autodiff.hessian_products(problem, theta), [], []
    for some in directions.split(step):
        products, pushed = push(some)
        columns.append(directions @ products.T)
        along.append(pushed.double())
    columns, along = torch.cat(columns, 1), torch.cat(along).transpose(1, 2)
    temperature, residual = problem.temperature, total.residual[point][0]
    autodiff.refuse_asymmetric(columns, float(along.square().sum()) / temperature**2)
    residual += columns
    outputs = problem.network(theta, problem.inputs).double()
    # The products are with the whole Hessian: subtract its Gauss–Newton part along raw directions to leave H′.
    cooled = outputs[None] / temperature
    loss, cooled, labels, tangents = problem.loss.elements(cooled, problem.labels, along / temperature)
    classes = losses.likeliest(cooled)
    residual -= loss.gauss_newton(cooled, loss.relative(tangents, classes), classes, labels)[0][0]
    total.radial_derivative[point] += autodiff.radial_derivative(problem, theta)
    parts = [(total.factor.new_ones(1), accumulators.orthonormalised(along, total.factor))]
    total.add(outputs[None], problem.labels, parts, point)


def chunks(loss: losses.Loss, inputs: Tensor, labels: Tensor, fitting: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Split examples into pairs (inputs, labels) of at most `fitting` examples, for automatic differentiation.

    On a CPU, a chunk also has at most EXAMPLES_PER_CHUNK examples. All examples stay in one chunk if the `loss` couples
    them.
    """
    most = fitting if inputs.is_cuda else min(fitting, tangents.EXAMPLES_PER_CHUNK)
    step = len(inputs) if loss.couples_examples else most
    return zip(inputs.split(step), labels.split(step))


def _averages(total: Sums) -> list[PlaneCurvature | None]:
    """Curvature at each point from the sums `total`; None where it is not finite.

    Raises ValueError instead of returning None if `total.refuse_overflow` is true.
    """
    n, factor, result = total.amount, total.factor.cpu().numpy(), []
    numbers = {name: values.tolist() for name, values in total.means().items()}
    matrices = (total.residual, total.gauss_newton, total.gradient, total.traces, total.squares)
    for i, point in enumerate(zip(*(each.cpu().numpy() for each in matrices))):
        residual, gauss_newton, gradient, traces, squares = point
        means = {name: values[i] for name, values in numbers.items()}
        if all(np.isfinite(each).all() for each in (residual, gauss_newton, gradient, means["loss"])):
            residual, effective = (
                planes.orthonormalised(residual, factor),
                summaries.effective_examples(traces, squares),
            )
            result.append(PlaneCurvature(gauss_newton / n, residual / n, gradient / n, effective, **means))
        elif total.refuse_overflow:
            raise ValueError(
                "the Hessian is not finite, because its entries at this radius are too large for the precision of the "
                "directions: use a smaller radius or scale, or give directions in double precision"
            )
        else:
            result.append(None)
    return result
