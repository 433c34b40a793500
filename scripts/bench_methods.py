"""Ways to compute the exact projected Hessian H_d = MᵀHM of the mean cross-entropy, behind one signature.

A method takes a problem, prepares what does not depend on the point, and returns a function from a point's parameters
(D,), float64, to H_d over the raw directions, (d, d). What is timed is the call of that function.
The competitors compute in the type of the directions throughout, as is usual; the engine keeps the forward pass in
double precision. Nothing of a library's way is changed but what it has switches for.
"""

import copy
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch.nn.functional import conv2d, cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from goldilocks import curvature
from goldilocks.directions import SPARSE_BELOW

# Examples × directions × activations of the widest layer in one pass, where a method leaves the choice to its user
# (128 MiB in float32).
ENTRIES_PER_CHUNK = 2**25

# Where `make bench` puts the libraries; behind everything else, so that nothing there shadows what .venv has.
sys.path.append(str(Path(__file__).parents[1] / ".venv-bench"))

AtPoint = Callable[[Tensor], Tensor]


def count_flops(function: Callable[[], object]) -> int:
    """Flops of all matrix products and convolutions of a call, also of those that torch's own counter does not know.

    Products in place and into given memory count like all others, sparse ones by their non-zero entries.
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
    known = {aten.mm: product, aten.addmm_: added, aten.baddbmm: batched, aten.addbmm: batched}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        function()
    return counter.get_total_flops()


@dataclass(frozen=True)
class Problem:
    """A network (float64), a point (D,) float64, directions (d, D) of any type, N examples, factors of the point."""

    network: nn.Module
    parameters: Tensor
    directions: Tensor
    inputs: Tensor
    labels: Tensor
    scales: tuple[float, ...]

    @property
    def dtype(self) -> torch.dtype:
        """The type in which competitors compute: that of the directions."""
        return self.directions.dtype


def engine(problem: Problem) -> Callable[[Tensor], curvature.PlaneCurvature]:
    """goldilocks.curvature.plane_curvature: H_d over orthonormal directions, with its Gauss–Newton part and more."""

    def at(parameters: Tensor) -> curvature.PlaneCurvature:
        (result,) = curvature.plane_curvature(
            problem.network, parameters, problem.directions, problem.inputs, problem.labels
        )
        return result

    return at


def engine_sweep(problem: Problem) -> Callable[[Tensor], list[curvature.PlaneCurvature]]:
    """goldilocks.curvature.radial_sweep: one H_d for each factor of the point."""

    def sweep(parameters: Tensor) -> list[curvature.PlaneCurvature]:
        found = curvature.radial_sweep(
            problem.network, parameters, problem.scales, problem.directions, problem.inputs, problem.labels
        )
        return [by_temperature[0][0] for by_temperature in found]

    return sweep


def matmul(problem: Problem) -> AtPoint:
    """The engine's large products alone, on random numbers of the same shapes: no masks, no softmax, no H_d.

    For each layer and chunk of directions: tangents of the weights times activations, weights times tangents, a weight
    gradient with tangents as inputs, its products with the directions; then the Gauss–Newton part from its factor.
    """
    layers = _layers(problem)
    d, n, k = len(problem.directions), len(problem.inputs), layers[-1].outputs.shape[1]
    step = _directions_per_chunk(problem)
    tangents = [torch.randn(min(step, d), *layer.inputs.shape, dtype=problem.dtype) for layer in layers]
    factor = torch.randn(d, n * k, dtype=problem.dtype)
    sparse = [_sparse_products(problem, layer, step) for layer in layers]

    def at(_: Tensor) -> Tensor:
        total, pulled = factor @ factor.T, {}
        for start in range(0, d, step):
            chunk = problem.directions[start : start + step]
            for number, (layer, tangent) in enumerate(zip(layers, tangents)):
                product = _products_of_convolution if layer.weight.ndim == 4 else _products_of_matrix
                first = number == 0
                if sparse[number] is not None:
                    turns, pulls = sparse[number]
                    turns[start] @ layer.inputs.T
                    if not first:
                        tangent = tangent[: len(chunk)]
                        tangent.flatten(0, 1) @ layer.weight.T
                        if start == 0:
                            pulled[number] = (pulls @ layer.outputs.T).view(d, -1)
                        total[:, start : start + step] += pulled[number] @ tangent.reshape(len(chunk), -1).T
                    continue
                gradients = product(layer, chunk[:, layer.place], None if first else tangent[: len(chunk)])
                if gradients is not None:
                    total[:, start : start + step] += problem.directions[:, layer.place] @ gradients.flatten(1).T
        return total

    return at


def _sparse_products(problem: Problem, layer: "_Layer", step: int) -> tuple[dict[int, Tensor], Tensor] | None:
    """Ẇ (d · o, i) of each chunk of directions and Ẇᵀ (d · i, o) of all, where products with them are sparse."""
    directions = problem.directions[:, layer.place]
    if layer.weight.ndim > 2 or directions.count_nonzero() >= SPARSE_BELOW * directions.numel():
        return None
    weights = directions.unflatten(1, layer.weight.shape)
    chunks = {start: weights[start : start + step].flatten(0, 1) for start in range(0, len(weights), step)}
    pulls = weights.mT.flatten(0, 1).to_sparse_csr()
    return {start: chunk.to_sparse_csr() for start, chunk in chunks.items()}, pulls


@dataclass(frozen=True)
class _Layer:
    """A weight, its place in the flat parameters, the layer's inputs (n, i, …), and outputs (n, o, …) as adjoints."""

    weight: Tensor
    place: slice
    padding: int
    inputs: Tensor
    outputs: Tensor


def _layers(problem: Problem) -> list[_Layer]:
    places, offset = {}, 0
    for parameter in problem.network.parameters():
        places[parameter] = slice(offset, offset + parameter.numel())
        offset += parameter.numel()
    layers = []

    def keep(module, inputs, output):
        weight, padding = module.weight, getattr(module, "padding", (0,))[0]
        arrays = (weight.detach().to(problem.dtype), inputs[0].to(problem.dtype), output.to(problem.dtype))
        layers.append(_Layer(arrays[0], places[weight], padding, *arrays[1:]))

    modules = [module for module in problem.network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [module.register_forward_hook(keep) for module in modules]
    with torch.no_grad():
        problem.network(problem.inputs)
    for hook in hooks:
        hook.remove()
    return layers


def _products_of_matrix(layer: _Layer, directions: Tensor, tangents: Tensor | None) -> Tensor | None:
    torch.matmul(layer.inputs, directions.unflatten(1, layer.weight.shape).mT)
    if tangents is None:
        return None
    tangents.flatten(0, 1) @ layer.weight.T
    return torch.matmul(layer.outputs.T, tangents)


def _products_of_convolution(layer: _Layer, directions: Tensor, tangents: Tensor | None) -> Tensor | None:
    """Directions stacked into output channels, into the batch, into input channels."""
    o, i, *kernel = layer.weight.shape
    conv2d(layer.inputs, directions.reshape(-1, i, *kernel), padding=layer.padding)
    if tangents is None:
        return None
    conv2d(tangents.flatten(0, 1), layer.weight, padding=layer.padding)
    stacked = tangents.transpose(0, 1).flatten(1, 2)
    weight = layer.weight.new_empty(o, stacked.shape[1], *kernel)
    geometry = ([1, 1], [layer.padding] * 2, [1, 1], False, [0, 0], 1)
    mask = [False, True, False]
    gradient = torch.ops.aten.convolution_backward(layer.outputs, stacked, weight, None, *geometry, mask)[1]
    return gradient.unflatten(1, (len(tangents), i)).transpose(0, 1)


def functional_hessian(problem: Problem) -> AtPoint:
    """torch.func.hessian of the loss as a function of the plane's d coordinates, summed over chunks of examples."""
    n, step = len(problem.inputs), max(1, ENTRIES_PER_CHUNK // (_widest(problem) * len(problem.directions)))
    parts = [
        (len(labels) / n, _loss(problem, inputs, labels))
        for inputs, labels in zip(problem.inputs.split(step), problem.labels.split(step))
    ]

    def at(parameters: Tensor) -> Tensor:
        point = parameters.to(problem.dtype)
        origin = point.new_zeros(len(problem.directions))
        return sum(
            share * hessian(lambda u, loss=loss: loss(point + u @ problem.directions))(origin) for share, loss in parts
        )

    return at


def vmap_jvp_grad(problem: Problem) -> AtPoint:
    """Hessian-vector products by jvp over grad, vmapped over chunks of directions."""
    gradient, step = grad(_loss(problem, problem.inputs, problem.labels)), _directions_per_chunk(problem)

    def at(parameters: Tensor) -> Tensor:
        point = parameters.to(problem.dtype)
        push = vmap(lambda direction: jvp(gradient, (point,), (direction,))[1])
        return torch.cat([push(chunk) @ problem.directions.T for chunk in problem.directions.split(step)])

    return at


def double_backward_loop(problem: Problem) -> AtPoint:
    """The gradient once with its graph, then one backward pass for each direction."""
    loss = _loss(problem, problem.inputs, problem.labels)

    def at(parameters: Tensor) -> Tensor:
        point = parameters.to(problem.dtype).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(point), point, create_graph=True)
        products = [
            torch.autograd.grad(gradient, point, direction, retain_graph=True)[0] for direction in problem.directions
        ]
        return torch.stack(products) @ problem.directions.T

    return at


def curvlinops(problem: Problem) -> AtPoint:
    """curvlinops' HessianLinearOperator applied to chunks of the matrix of directions, its check of the data off."""
    from curvlinops import HessianLinearOperator

    network, data = _converted(problem)
    weights, step = list(network.parameters()), _directions_per_chunk(problem)

    def at(parameters: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(parameters.to(problem.dtype), weights)
        operator = HessianLinearOperator(network, nn.CrossEntropyLoss(), weights, [data], check_deterministic=False)
        chunks = problem.directions.split(step)
        return torch.cat([problem.directions @ (operator @ chunk.T) for chunk in chunks], dim=1)

    return at


def pyhessian(problem: Problem) -> AtPoint:
    """PyHessian's class `hessian` and its Hessian-vector product for each direction."""
    from pyhessian import hessian as PyHessian
    from pyhessian import hessian_vector_product

    network, data = _converted(problem)
    weights = list(network.parameters())
    sizes = [weight.numel() for weight in weights]

    def at(parameters: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(parameters.to(problem.dtype), weights)
        prepared = PyHessian(network, nn.CrossEntropyLoss(), data=data, cuda=False)
        products = []
        for direction in problem.directions:
            vector = [piece.view_as(weight) for piece, weight in zip(direction.split(sizes), weights)]
            product = hessian_vector_product(prepared.gradsH, prepared.params, vector)
            products.append(torch.cat([piece.flatten() for piece in product]))
        network.zero_grad()  # It adds to gradients that are there; and they hold the graph.
        return torch.stack(products) @ problem.directions.T

    return at


# Names as in the CSV. The first is what the others are held to.
METHODS = {
    "engine": engine,
    "engine_sweep": engine_sweep,
    "matmul": matmul,
    "torch.func.hessian": functional_hessian,
    "vmap jvp-grad": vmap_jvp_grad,
    "double backward loop": double_backward_loop,
    "curvlinops": curvlinops,
    "PyHessian": pyhessian,
}
LIBRARIES = {"curvlinops": "curvlinops", "PyHessian": "pyhessian"}


def installed() -> list[str]:
    """The methods whose library can be found."""
    return [name for name in METHODS if name not in LIBRARIES or importlib.util.find_spec(LIBRARIES[name])]


def _logits(network: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    names, shapes = zip(*((name, tensor.shape) for name, tensor in network.named_parameters()))
    sizes = [shape.numel() for shape in shapes]

    def logits(parameters: Tensor, inputs: Tensor) -> Tensor:
        pieces = (piece.view(shape) for piece, shape in zip(parameters.split(sizes), shapes))
        return functional_call(network, dict(zip(names, pieces)), (inputs,))

    return logits


def _loss(problem: Problem, inputs: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    logits, inputs = _logits(problem.network), inputs.to(problem.dtype)
    return lambda parameters: cross_entropy(logits(parameters, inputs), labels)


def _converted(problem: Problem) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The network and its data, copied in the type of the directions."""
    return copy.deepcopy(problem.network).to(problem.dtype), (problem.inputs.to(problem.dtype), problem.labels)


def _directions_per_chunk(problem: Problem) -> int:
    return max(1, ENTRIES_PER_CHUNK // (_widest(problem) * len(problem.inputs)))


def _widest(problem: Problem) -> int:
    """Most activations of an example behind a layer."""
    return max(layer.outputs[0].numel() for layer in _layers(replace(problem, inputs=problem.inputs[:1])))
