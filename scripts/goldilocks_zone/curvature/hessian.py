"""Exact Hessians of the mean loss on random planes: at one point, or over a sweep of radii and temperatures.

For ReLU this is the almost-everywhere Hessian: what automatic differentiation gives, without the kinks.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import arguments, autodiff, homogeneous_sweep, symmetry, tangents
from goldilocks_zone.curvature import hessian_vector_products as curvature_hessian_vector_products
from goldilocks_zone.curvature.accumulators import Sums, orthonormalised
from goldilocks_zone.curvature.arguments import Array
from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.models import chains, losses, modes
from goldilocks_zone.models.networks import Logits
from goldilocks_zone.spectra import summaries
from goldilocks_zone.subspaces import planes

Rows = Array | scipy.sparse.sparray
HOMOGENEOUS, SHARED, POINTWISE, AUTOMATIC = (
    "homogeneous sweep",
    "tangents with shared directions",
    "tangents and one adjoint",
    "forward over reverse",
)


@dataclass(frozen=True)
class PlaneCurvature:
    """Second-order picture of the mean loss over n examples on a plane of d orthonormal directions.

    gauss_newton, residual: the parts G and H′ of the Hessian, shape (d, d); gradient: in the plane, shape (d,);
    effective_examples: (Σt)²/Σt² with t the traces of the examples' G on the first 1 … d directions, shape (d,);
    loss: mean over examples, in nats for cross-entropy; logits_std: root mean square over examples of the standard
    deviation (k − 1 degrees of freedom) of their k logits; radial_derivative: ⟨∇L, θ⟩; zero_logits: share of the
    logits that are exactly zero.

    Of the softmax's output p at the point's temperature, mean Q̂ over the examples, whose classes have the shares Q
    (Vysogorets et al. 2024): entropy: mean over examples, in nats; prior_mismatch: ‖Q − Q̂‖₂; softmax_ratio:
    Γ = Tr(M)/‖M‖_F with M = ⟨diag p − ppᵀ⟩, 1 where M vanishes; class_gradient, example_gradient: σ_C and σ_E, root
    mean squares over classes and orthonormal directions of the logit gradients' mean over examples (which what is left
    of σ_E in a mean of n examples is taken off) and of their deviation from it.
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


def plane_curvature(
    network: nn.Module | Logits,
    parameters: Tensor,
    directions: Rows,
    inputs: Tensor,
    labels: Tensor,
    *,
    examples: Sequence[int] | None = None,
    loss: str = "cross_entropy",
    temperature: float = 1.0,
    memory_mib: float = 1024,
) -> list[PlaneCurvature]:
    """Curvature on the plane through `parameters` (D,) spanned by the raw `directions` (d, D).

    As `radial_sweep` at the one scale 1 and the one temperature: one result for each number of `examples`.
    """
    return radial_sweep(
        network,
        parameters,
        [1.0],
        directions,
        inputs,
        labels,
        temperatures=[temperature],
        examples=examples,
        loss=loss,
        memory_mib=memory_mib,
    )[0][0]


def radial_sweep(
    network: nn.Module | Logits,
    parameters: Tensor,
    scales: Sequence[float],
    directions: Rows,
    inputs: Tensor,
    labels: Tensor,
    *,
    temperatures: Sequence[float] = (1.0,),
    examples: Sequence[int] | None = None,
    loss: str = "cross_entropy",
    memory_mib: float = 1024,
) -> list[list[list[PlaneCurvature]]]:
    """Curvature at the points α · `parameters` (D,) for each scale α, on planes along the raw `directions` (d, D).

    `network` is a module whose parameters, flattened in order, `parameters` replaces, or a function
    (parameters (D,), inputs) → logits (n, k). `inputs` (N, …) and `labels` (N,), whole numbers of classes, are the
    examples; `examples` lists how many of the first ones to average over (default: all N). The softmax sees logits /
    temperature. Arrays may be torch's or numpy's. Results are indexed by scale, temperature and number of examples.
    `path_of` says which way of computing is taken.

    Directions need not be orthonormal: they are made so, in order, through their Gram matrix. Sparse ones can be given
    with their non-zero entries alone, as a sparse matrix, which saves memory and a pass over all of it. Where
    `path_of` is not AUTOMATIC, points are in double precision and tangents in that of `directions`; else everything is
    in the latter. `memory_mib` bounds the working memory beside parameters, directions and examples, in MiB.

    Nothing of a module changes. Parts of its forward pass under `detach` are constants.

    Raises ValueError if the directions are linearly dependent, a logit, a loss or a Hessian is not finite, the loss is
    unknown, the network mixes examples, changes its parameters, is random, gives other than logits (n, k), has parts
    under `torch.no_grad` or cannot be differentiated twice, a scale is not positive, sizes or types do not fit, or more
    examples are asked for than there are.
    """
    pairs = [(scale, temperature) for scale in scales for temperature in temperatures]
    options = {"examples": examples, "loss": loss, "memory_mib": memory_mib}
    found = curvature_at(network, parameters, pairs, directions, inputs, labels, **options)
    return [found[start : start + len(temperatures)] for start in range(0, len(pairs), len(temperatures))]


@modes.differentiating
def curvature_at(
    network: nn.Module | Logits,
    parameters: Tensor,
    points: Sequence[tuple[float, float]],
    directions: Rows,
    inputs: Tensor,
    labels: Tensor,
    *,
    examples: Sequence[int] | None = None,
    loss: str = "cross_entropy",
    memory_mib: float = 1024,
    refuse_overflow: bool = True,
) -> list[list[PlaneCurvature | None]]:
    """As `radial_sweep`, at any `points` (scale, temperature); results are indexed by point and number of examples.

    Without `refuse_overflow` a logit, loss or Hessian that is not finite raises no error: the result is None there.
    """
    if not points:
        raise ValueError("no point was asked for: give one scale and one temperature at least")
    scales, temperatures = map(list, zip(*points))
    for scale in scales:
        if not 0 < scale < math.inf:
            raise ValueError(f"the scale {scale} is not positive and finite: a sweep runs outwards along one ray")
    arguments.refuse_unfit_options(loss=loss, temperatures=temperatures, memory_mib=memory_mib)
    network, parameters = arguments.network(network), arguments.parameters(parameters)
    directions = arguments.plane(directions, parameters)
    arguments.refuse_other_size(parameters, network, directions.shape[1])
    inputs, labels = arguments.examples(network, parameters.to(_precision(directions)), inputs, labels, loss)
    counts = arguments.counts(examples, len(inputs))
    ends = (scale * parameters.double() for scale in {min(scales), max(scales)})
    chain = chains.matching(network, ends, inputs)
    path = _path(chain, parameters, len(points))
    directions, sparse = _prepared(directions, path, parameters.device)
    given = directions.cpu().numpy() if sparse is None else sparse
    factor = torch.as_tensor(planes.cholesky(given), device=parameters.device)
    total = Sums(factor, loss, temperatures, refuse_overflow)
    known = chain or autodiff.function(network)
    add = _adder(path, known, parameters, scales, directions, sparse, memory_mib, inputs, total)
    result = {}
    for start, stop in pairwise([0, *sorted(set(counts))]):
        add(inputs[start:stop], labels[start:stop])
        total.count = stop
        result[stop] = _averages(total)
    return [[result[n][i] for n in counts] for i in range(len(points))]


@modes.differentiating
def path_of(network: nn.Module | Logits, parameters: Array, points: int, inputs: Array | None = None) -> str:
    """The fastest exact way to the curvature of `network` at this many points on the ray through `parameters`.

    Layers are taken to be what their classes say, and to see vectors; where `inputs` (n, …) are given, this is found
    out.
    """
    if inputs is not None:
        network, parameters, inputs, _ = arguments.problem(network, parameters, inputs)
        return _path(chains.matching(network, [parameters], inputs), parameters, points)
    network, parameters = arguments.network(network), arguments.parameters(parameters)
    arguments.refuse_other_size(parameters, network)
    chain = chains.of(network) if isinstance(network, nn.Module) else None
    return _path(chain, parameters, points)


def _path(chain: tuple | None, parameters: Tensor, points: int) -> str:
    if chain is None:
        return AUTOMATIC
    if points == 1:
        return POINTWISE
    return HOMOGENEOUS if homogeneous_sweep.applies(chain, parameters) else SHARED


@modes.differentiating
def sphere_curvature(
    network: nn.Module | Logits,
    parameters: Tensor,
    directions: Tensor,
    inputs: Tensor,
    labels: Tensor,
    *,
    loss: str = "cross_entropy",
    temperature: float = 1.0,
    memory_mib: float = 1024,
) -> np.ndarray:
    """Riemannian Hessian (d, d) of the mean loss on the sphere |θ| = r through `parameters` (D,).

    On orthonormal directions P tangent to the sphere, made from the raw `directions` (d, D) by taking off their part
    along u = θ/r: PᵀHP − (⟨∇L, θ⟩/r²) I. Arguments and errors as in `plane_curvature`; raises ValueError also if
    the directions and θ are linearly dependent.
    """
    theta = arguments.parameters(parameters)
    directions = arguments.plane(directions, theta)
    arguments.refuse_other_size(theta, arguments.network(network), directions.shape[-1])
    if not isinstance(directions, Tensor):
        directions = torch.as_tensor(directions.toarray(), device=theta.device)
    radius = theta.double().norm()
    if not radius > 0:
        raise ValueError("the parameters are zero, so that no sphere goes through them: give others")
    outward = (theta / radius).to(directions)
    # With u in front, the Cholesky factor takes it off all the others.
    spanned = torch.cat([outward[None], directions])
    options = {"loss": loss, "temperature": temperature, "memory_mib": memory_mib}
    found = plane_curvature(network, parameters, spanned, inputs, labels, **options)[0]
    return found.hessian[1:, 1:] - found.radial_derivative / float(radius) ** 2 * np.eye(len(directions))


@modes.differentiating
def hessian_vector_products(
    network: nn.Module | Logits,
    parameters: Tensor,
    vectors: Tensor,
    inputs: Tensor,
    labels: Tensor,
    *,
    part: str = "hessian",
    loss: str = "cross_entropy",
    temperature: float = 1.0,
    memory_mib: float = 1024,
) -> Tensor:
    """Products of the Hessian of the mean loss with each row of `vectors` (d, D), shape (d, D).

    As `hessian_products`, for one call, in the precision of `vectors`.
    """
    theta = arguments.parameters(parameters).to(arguments.real(vectors, "vectors").dtype)
    options = {"part": part, "loss": loss, "temperature": temperature, "memory_mib": memory_mib}
    return hessian_products(network, theta, inputs, labels, **options)(vectors)


@modes.differentiating
def hessian_products(
    network: nn.Module | Logits,
    parameters: Tensor,
    inputs: Tensor,
    labels: Tensor,
    *,
    part: str = "hessian",
    loss: str = "cross_entropy",
    temperature: float = 1.0,
    memory_mib: float = 1024,
) -> Callable[[Tensor], Tensor]:
    """The map from vectors (d, D) to products (d, D) with the Hessian of the mean loss at `parameters` (D,).

    `part` is `hessian` or `gauss_newton`. In the precision of the parameters: of fully connected chains from one pass
    over the examples for all calls, where `memory_mib` holds what is kept of it; else by automatic differentiation.
    Of numpy's vectors in double precision to numpy's products, as `lanczos` wants it. Raises ValueError, and the map
    does, as `radial_sweep` does, or if the part is unknown.
    """
    arguments.refuse_unfit_options(loss=loss, temperatures=[temperature], memory_mib=memory_mib, part=part)
    network, parameters, inputs, labels = arguments.problem(network, parameters, inputs, labels, loss)
    chain = chains.matching(network, [parameters], inputs)
    if curvature_hessian_vector_products.applies(chain, parameters, inputs, memory_mib):
        options = {"gauss_newton": part == "gauss_newton", "loss": loss, "temperature": temperature}
        return arguments.of_rows(
            curvature_hessian_vector_products.Products(chain, parameters, inputs, labels, **options), parameters
        )
    logits = autodiff.function(network)
    refuse_unfit_logits(logits, parameters, inputs, part)
    fitting = autodiff.examples_per_chunk(logits, parameters, inputs, memory_mib)

    def products(vectors: Tensor) -> Tensor:
        total = torch.zeros_like(vectors)
        for chunk, targets in _chunks(inputs, labels, min(fitting, tangents.EXAMPLES_PER_CHUNK)):
            step = autodiff.directions_per_chunk(logits, parameters, chunk, memory_mib)
            problem = (logits, parameters, chunk, targets, loss, temperature)
            push = (
                autodiff.gauss_newton_products(*problem)
                if part == "gauss_newton"
                else autodiff.hessian_products(*problem)
            )
            for start in range(0, len(vectors), step):
                found = push(vectors[start : start + step])
                total[start : start + step] += found if part == "gauss_newton" else found[0]
        return total / len(inputs)

    return arguments.of_rows(products, parameters)


def _adder(path, network, parameters, scales, directions, sparse, memory_mib, inputs, total) -> Callable:
    """The function that adds examples to the sums of all points; `network` is a chain, or logits as a function."""
    if path == AUTOMATIC:
        return _automatic_adder(network, parameters, scales, directions, memory_mib, inputs, total)
    chain, parameters = network, parameters.double()
    prepared = Directions(directions, chain, sparse)
    plan = tangents.plan(chain, parameters, prepared, inputs, len(total), path == HOMOGENEOUS, memory_mib)

    def add(inputs, labels):
        for chunk, targets in _chunks(inputs, labels, plan.examples):
            problem = (chain, parameters, scales, prepared, chunk.double(), targets, total)
            if path == HOMOGENEOUS:
                homogeneous_sweep.add_chunk(*problem)
            else:
                tangents.add_chunk(*problem, plan.directions)

    return add


def _precision(directions: Tensor | scipy.sparse.csr_array) -> torch.dtype:
    return directions.dtype if isinstance(directions, Tensor) else torch.from_numpy(directions.data).dtype


def _prepared(directions: Rows, path: str, device: torch.device) -> tuple[Rows, scipy.sparse.csr_array | None]:
    """Directions as the `path` takes them, and their non-zero entries in double precision where they are few."""
    if isinstance(directions, Tensor):
        return directions, planes.as_sparse(directions.cpu().numpy())
    few = directions.nnz < planes.SPARSE_BELOW * math.prod(directions.shape)
    sparse = directions.astype(np.float64) if few else None
    if few and path != AUTOMATIC and device.type == "cpu":
        return directions, sparse
    return torch.as_tensor(directions.toarray(), device=device), sparse


def _automatic_adder(logits, parameters, scales, directions, memory_mib, inputs, total) -> Callable:
    """Hessian products by automatic differentiation, in the precision of the directions."""
    parameters, inputs = parameters.to(directions.dtype), arguments.in_precision(inputs, directions.dtype)
    refuse_unfit_logits(logits, parameters, inputs)
    fitting = autodiff.examples_per_chunk(logits, parameters, inputs, memory_mib)

    def add(inputs, labels):
        inputs = arguments.in_precision(inputs, directions.dtype)
        for chunk, targets in _chunks(inputs, labels, min(fitting, tangents.EXAMPLES_PER_CHUNK)):
            step = autodiff.directions_per_chunk(logits, parameters, chunk, memory_mib)
            for number, scale in enumerate(scales):
                add_to(slice(number, number + 1), scale * parameters, chunk, targets, step)

    def add_to(point, theta, inputs, labels, step):
        temperature, residual = total.temperatures[point].item(), total.residual[point][0]
        problem = (logits, theta, inputs, labels, total.loss, temperature)
        push, columns, along = autodiff.hessian_products(*problem), [], []
        for start in range(0, len(directions), step):
            products, pushed = push(directions[start : start + step])
            columns.append(directions @ products.T)
            along.append(pushed.double())
        columns, along = torch.cat(columns, 1), torch.cat(along).transpose(1, 2)
        symmetry.refuse_asymmetric(columns, float(along.square().sum()) / temperature**2)
        residual += columns
        outputs = logits(theta, inputs).double()
        # The Gauss–Newton part over raw directions is taken off again.
        classes, cooled = losses.likeliest(outputs[None]), outputs[None] / temperature
        relative = losses.relative(along / temperature, classes, total.loss)
        residual -= losses.gauss_newton(cooled, relative, classes, total.loss)[0][0]
        total.radial_derivative[point] += autodiff.radial_derivative(*problem)
        total.add(outputs[None], labels, [(total.factor.new_ones(1), orthonormalised(along, total.factor))], point)

    return add


def refuse_unfit_logits(logits: Logits, parameters: Tensor, inputs: Tensor, part: str = "hessian") -> None:
    """Raise ValueError where automatic differentiation would give what is no `part` of a Hessian."""
    _refuse_random(logits, parameters, inputs)
    _refuse_mixing(logits, parameters, inputs)
    symmetry.refuse_asymmetric_products(logits, parameters, inputs, part)


def _refuse_mixing(logits: Logits, parameters: Tensor, inputs: Tensor) -> None:
    """Raise ValueError where the logits of an example depend on the others of its batch."""
    # Each in another company, and behind others: what goes through examples in order sees only those before.
    chosen = [2, 0] if len(inputs) > 2 else [1, 1] if len(inputs) == 2 else [0]
    alone, among = logits(parameters, inputs[chosen]), logits(parameters, inputs[:3])[chosen]
    # Logits that are not finite are refused with the examples that have them.
    if torch.isfinite(among).all() and (alone - among).abs().max() > 1e-3 * among.abs().max():
        raise ValueError(
            "the network mixes the examples of a batch, so that it has no loss per example: let the logits of one "
            "depend on no other, neither by attention over the batch nor by its mean"
        )


def _refuse_random(logits: Logits, parameters: Tensor, inputs: Tensor) -> None:
    """Raise ValueError where the logits of an example depend on chance."""
    generator = torch.cuda if parameters.is_cuda else torch
    states, found = [generator.get_rng_state()], []
    for _ in range(2):
        found.append(logits(parameters, inputs[:1]).nan_to_num())
        states.append(generator.get_rng_state())
    # What leaves a layer out by chance may have done so twice, or not at all.
    if not all(torch.equal(*pair) for pairs in (found, states) for pair in pairwise(pairs)):
        raise ValueError(autodiff.RANDOM)


def _averages(total: Sums) -> list[PlaneCurvature | None]:
    """The picture at each point over the examples so far; None where it is not finite, unless that is refused."""
    n, factor = total.count, total.factor.cpu().numpy()
    names = ("residual", "gauss_newton", "gradient", "traces", "squares", "losses", "variances", "radial_derivative")
    names += ("entropies", "zeros")
    moments = total.moments()
    result = []
    for i, values in enumerate(zip(*(getattr(total, name).cpu().numpy() for name in names))):
        here = dict(zip(names, values))
        if not all(np.isfinite(here[name]).all() for name in ("residual", "gauss_newton", "gradient", "losses")):
            if not total.refuse_overflow:
                result.append(None)
                continue
            raise ValueError(
                "the Hessian is not finite: the radius is too large for the precision of the directions, lower it or "
                "give them in double precision"
            )
        result.append(
            PlaneCurvature(
                gauss_newton=here["gauss_newton"] / n,
                residual=planes.orthonormalised(here["residual"], factor) / n,
                gradient=here["gradient"] / n,
                effective_examples=summaries.effective_examples(here["traces"], here["squares"]),
                loss=float(here["losses"] / n),
                logits_std=float(np.sqrt(here["variances"] / n)),
                radial_derivative=float(here["radial_derivative"] / n),
                zero_logits=float(here["zeros"] / n),
                entropy=float(here["entropies"] / n),
                **{name: float(values[i]) for name, values in moments.items()},
            )
        )
    return result


def _chunks(inputs: Tensor, labels: Tensor, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(inputs), step):
        yield inputs[start : start + step], labels[start : start + step]
