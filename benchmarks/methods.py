"""Methods to compute the exact projected Hessian H_d = MᵀHM of the mean cross-entropy, behind one signature.

A method takes a problem and returns a function from the parameters (D,) of a point, float64, to H_d (d, d) over the raw
directions, the columns of M. Only calls of this function are timed. Competitors compute in the dtype of the directions
throughout; the engine keeps the forward pass in double precision. Libraries are used unmodified, apart from options.
"""

import copy
import functools
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from goldilocks_zone.curvature import hessian as curvature_hessian
from goldilocks_zone.curvature import tangents
from goldilocks_zone.curvature.arguments import Rows
from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.curvature.dispatch import PlaneCurvature
from goldilocks_zone.curvature.tangents import Ray, cross_terms
from goldilocks_zone.models import chains
from goldilocks_zone.models import layers as models_layers
from goldilocks_zone.models import problem as models_problem

# Limit of examples × directions × activations of the widest layer in one pass, where a method allows a choice: 128 MiB
# in float32.
ENTRIES_PER_CHUNK = 2**25
MEMORY_MIB = 1024  # the engine's default

# `make bench` installs the libraries in .venv-bench. It is the last place to search, so that no package of .venv is
# shadowed.
sys.path.append(str(Path(__file__).parents[1] / ".venv-bench"))

AtPoint = Callable[[Tensor], Tensor]


def count_flops(function: Callable[[], object], plain: bool = False) -> int:
    """Flops of the matrix products and convolutions in a call of `function`, by torch's counter.

    Unless `plain`, products that are added to a tensor in place count too, and products of sparse matrices count by
    their non-zero entries.
    """

    def product(a, b, *_, **__):
        return 2 * (a._nnz() if a.layout == torch.sparse_csr else a.numel()) * b.shape[1]

    def added(onto, a, b, *_, **__):
        return product(a, b)

    def batched(onto, a, b, *_, **__):
        return 2 * a.numel() * b.shape[2]

    for formula in (product, added, batched):
        formula._get_raw = True
    aten = torch.ops.aten
    known = {aten.mm: product, aten.addmm_: added} | dict.fromkeys([aten.baddbmm, aten.baddbmm_, aten.addbmm], batched)
    with FlopCounterMode(display=False, custom_mapping={} if plain else known) as counter:
        function()
    return counter.get_total_flops()


def dense(widths: tuple[int, ...], biases: bool = True) -> nn.Sequential:
    """Fully connected ReLU network with layers of these widths, from inputs to logits."""
    layers = [each for i, o in pairwise(widths) for each in (nn.Linear(i, o, bias=biases), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


@dataclass(frozen=True)
class Problem:
    """The work of a case: a Hessian at each of the `points`, projected on the `directions`.

    network: in float64. parameters: (D,), float64. directions: (d, D), dense, in any floating-point type. inputs,
    labels: the N examples. points: pairs of a factor of the parameters and a temperature. drawn: the same directions as
    the studies draw them, perhaps as a sparse matrix.
    """

    network: nn.Module
    parameters: Tensor
    directions: Tensor
    inputs: Tensor
    labels: Tensor
    points: list[tuple[float, float]]
    drawn: Rows

    @property
    def ours(self) -> models_problem.Problem:
        """The problem in the form that the engine takes."""
        return models_problem.Problem(self.network, self.inputs, self.labels)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the directions, in which competitors compute."""
        return self.directions.dtype


def engine(problem: Problem) -> Callable[[Tensor], PlaneCurvature]:
    """Function from parameters (D,) to the result of the engine at this one point, by `plane_hessian`.

    The result has H_d over orthonormal directions, its Gauss–Newton part and more.
    """
    return lambda parameters: curvature_hessian.plane_hessian(problem.ours, parameters, problem.drawn)


def engine_sweep(problem: Problem) -> Callable[[Tensor], list[PlaneCurvature]]:
    """Function from parameters (D,) to the engine's results at all `problem.points`, by one sweep (`curvature_at`)."""
    sweep = curvature_hessian.curvature_at
    return lambda theta: [found for (found,) in sweep(problem.ours, theta, problem.points, problem.drawn)]


def matmul(problem: Problem) -> AtPoint:
    """Function that only carries out the engine's large matrix products, in chunks of the same sizes; computes no H_d.

    Tangents and the factor F of the projected Gauss–Newton matrix G = FFᵀ are random. The products are one forward and
    one backward pass in double precision; for each layer the products of directions and activations, of weights and
    tangents, and of the adjoint, the tangents and the directions; then FFᵀ.
    """
    chain, point = chains.of(problem.network), problem.parameters.double()
    directions = Directions(problem.directions, chain)
    d = len(directions)
    examples, step = tangents.plan(Ray(chain, point, [1.0], directions), problem.inputs, False, MEMORY_MIB)
    prepared = [_products(chain, point, directions, inputs) for inputs in problem.inputs.double().split(examples)]

    def at(_: Tensor) -> Tensor:
        total = problem.directions.new_zeros(d, d)
        for inputs, layers, factor in prepared:
            outputs, kept = chains.forward(chain, point, inputs)
            chains.backward(kept, point, outputs, to_inputs=False)
            layers = [(replace(each), along) for each, along in layers]
            for start in range(0, d, step):
                rows = directions.rows(start, start + step)
                for each, along in layers:
                    if along is None:
                        each.layer.turn(rows, each.memory)
                    else:
                        each.layer.turn(rows, each.memory, each.layer.carry(each.weights, along[: len(rows)]))
                        total[:, start : start + len(rows)] += cross_terms(each, directions, along[: len(rows)])
            total += factor @ factor.T
        return total

    return at


def _products(
    chain: tuple, point: Tensor, directions: Directions, inputs: Tensor
) -> tuple[Tensor, list[tuple[tangents.Step, Tensor | None]], Tensor]:
    """Operands of `matmul` for one chunk of examples: the inputs, the layers with weights, and a random factor F of G.

    A layer is a pair of its linearised step and random tangents of its inputs, which are None for the first layer.
    `chain` is the network as a sequence of layers, and `point` its parameters (D,).
    """
    outputs, kept = chains.forward(chain, point, inputs)
    _, kept = chains.backward(kept, point, torch.randn_like(outputs))
    layers = []
    for step in tangents.linearised(kept, point, directions.dtype):
        if isinstance(step.layer, models_layers.Affine):
            shape = (len(directions), *step.memory.shape)
            layers.append((step, torch.randn(shape, dtype=directions.dtype) if layers else None))
    return inputs, layers, torch.randn(len(directions), outputs.numel(), dtype=directions.dtype)


def functional_hessian(problem: Problem) -> AtPoint:
    """Function from parameters (D,) to H_d, by torch.func.hessian of the loss over the plane's d coordinates.

    The Hessians of chunks of examples are added up.
    """
    n, step = len(problem.inputs), max(1, ENTRIES_PER_CHUNK // (_widest(problem) * len(problem.directions)))
    network, data = _converted(problem)
    chunks = zip(*(each.split(step) for each in data))
    parts = [(len(labels) / n, loss_of(network, inputs, labels)) for inputs, labels in chunks]

    def at(parameters: Tensor) -> Tensor:
        point = parameters.to(problem.dtype)
        origin = point.new_zeros(len(problem.directions))
        return sum(
            share * hessian(lambda u, loss=loss: loss(point + u @ problem.directions))(origin) for share, loss in parts
        )

    return at


def vmap_jvp_grad(problem: Problem, compiled: bool = False) -> AtPoint:
    """Function from parameters (D,) to H_d, from Hessian-vector products by torch.func's jvp over grad.

    Products are computed by vmap over chunks of directions, and compiled by torch.compile if `compiled`.
    """
    network, data = _converted(problem)
    loss = loss_of(network, *data)
    gradient, step = grad(loss), _directions_per_chunk(problem)

    def products(point: Tensor, directions: Tensor) -> Tensor:
        return vmap(lambda direction: jvp(gradient, (point,), (direction,))[1])(directions)

    push = torch.compile(products, dynamic=False) if compiled else products

    def at(parameters: Tensor) -> Tensor:
        point = parameters.to(problem.dtype)
        with differentiable_attention():
            return torch.cat([push(point, chunk) @ problem.directions.T for chunk in problem.directions.split(step)])

    return at


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Context in which attention uses kernels that have second derivatives.

    Users of the competitors need such a context too.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def double_backward_loop(problem: Problem) -> AtPoint:
    """Function from parameters (D,) to H_d, from Hessian-vector products by double backward.

    One gradient is computed with its graph, followed by one backward pass for each direction.
    """
    network, data = _converted(problem)
    loss = loss_of(network, *data)

    def at(parameters: Tensor) -> Tensor:
        point = parameters.to(problem.dtype).requires_grad_()
        directions = problem.directions
        with differentiable_attention():
            (gradient,) = torch.autograd.grad(loss(point), point, create_graph=True)
            products = [torch.autograd.grad(gradient, point, each, retain_graph=True)[0] for each in directions]
        return torch.stack(products) @ directions.T

    return at


def curvlinops(problem: Problem) -> AtPoint:
    """Function from parameters (D,) to H_d, by curvlinops' HessianLinearOperator on chunks of directions.

    The operator's check that the data are the same in every pass is switched off.
    """
    from curvlinops import HessianLinearOperator

    network, data = _converted(problem)
    weights, step = list(network.parameters()), _directions_per_chunk(problem)

    def at(parameters: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(parameters.to(problem.dtype), weights)
        chunks = problem.directions.split(step)
        with differentiable_attention():
            operator = HessianLinearOperator(network, nn.CrossEntropyLoss(), weights, [data], check_deterministic=False)
            return torch.cat([problem.directions @ (operator @ chunk.T) for chunk in chunks], dim=1)

    return at


def pyhessian(problem: Problem) -> AtPoint:
    """Function from parameters (D,) to H_d, by PyHessian.

    PyHessian's class `hessian` prepares the gradient for a `hessian_vector_product` for each direction.
    """
    from pyhessian import hessian as PyHessian
    from pyhessian import hessian_vector_product

    network, data = _converted(problem)
    weights = list(network.parameters())
    sizes = [weight.numel() for weight in weights]

    def at(parameters: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(parameters.to(problem.dtype), weights)
        products = []
        with differentiable_attention():
            cuda = problem.parameters.is_cuda
            prepared = PyHessian(network, nn.CrossEntropyLoss(), data=data, cuda=cuda)
            for direction in problem.directions:
                vector = [piece.view_as(weight) for piece, weight in zip(direction.split(sizes), weights)]
                product = hessian_vector_product(prepared.gradsH, prepared.params, vector)
                products.append(torch.cat([piece.flatten() for piece in product]))
        network.zero_grad()  # Gradients would accumulate, and hold the graph.
        return torch.stack(products) @ problem.directions.T

    return at


# Methods by their names in the CSV. Results of the first method are the reference for the others.
METHODS = {
    "engine": engine,
    "engine_sweep": engine_sweep,
    "matmul": matmul,
    "torch.func.hessian": functional_hessian,
    "vmap jvp-grad": vmap_jvp_grad,
    "vmap jvp-grad compiled": functools.partial(vmap_jvp_grad, compiled=True),
    "double backward loop": double_backward_loop,
    "curvlinops": curvlinops,
    "PyHessian": pyhessian,
}
LIBRARIES = {"curvlinops": "curvlinops", "PyHessian": "pyhessian"}


def installed() -> list[str]:
    """Names of all methods except those whose library is not installed."""
    return [name for name in METHODS if name not in LIBRARIES or importlib.util.find_spec(LIBRARIES[name])]


def loss_of(network: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Function from parameters (D,) of the `network` to its mean cross-entropy on the examples (`inputs`, `labels`).

    The parameters must be in the dtype of the inputs.
    """
    names, shapes = zip(*((name, tensor.shape) for name, tensor in network.named_parameters()))
    sizes = [shape.numel() for shape in shapes]

    def loss(parameters: Tensor) -> Tensor:
        pieces = (piece.view(shape) for piece, shape in zip(parameters.split(sizes), shapes))
        return cross_entropy(functional_call(network, dict(zip(names, pieces)), (inputs,)), labels)

    return loss


def _converted(problem: Problem) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Copy of the network, and the pair (inputs, labels); network and inputs are in the dtype of the directions."""
    return copy.deepcopy(problem.network).to(problem.dtype), (problem.inputs.to(problem.dtype), problem.labels)


def _directions_per_chunk(problem: Problem) -> int:
    """Number of directions per chunk, so that a pass over all examples stays within ENTRIES_PER_CHUNK.

    All chunks have about the same size, because each new size is compiled again.
    """
    d, most = len(problem.directions), max(1, ENTRIES_PER_CHUNK // (_widest(problem) * len(problem.inputs)))
    return math.ceil(d / math.ceil(d / most))


def _widest(problem: Problem) -> int:
    """Largest number of outputs per example of any linear or convolutional layer of the problem's network."""
    widths, modules = [], [each for each in problem.network.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    hooks = [each.register_forward_hook(lambda *call: widths.append(call[2][0].numel())) for each in modules]
    with torch.no_grad():
        problem.network(problem.inputs[:1])
    for hook in hooks:
        hook.remove()
    return max(widths)
