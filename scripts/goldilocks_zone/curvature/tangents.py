"""Projected Hessians of chains of layers at a point, from d tangents and one adjoint.

For layer l and each direction, let ż_l and ȧ_l be the tangents of the pre-activations z_l and of the activations a_l,
and Ẇ_l the entries of the direction in the weights. Let δ_l be the adjoint of z_l for the loss. The part H′ of the
Hessian, which has the second derivatives of the logits, is H′ = C + Cᵀ. The cross terms C_ij of the directions i and j
are Σ_l ⟨Ẇ_l^i, Σ_n δ_l ȧ_{l−1}^jᵀ⟩, with a sum over layers and one over examples. Smooth activations φ add Σ_l ⟨ε_l ⊙
φ″(z_l), ż_l^i ⊙ ż_l^j⟩ to H′, where ε_l is the adjoint of the output of φ. A direction costs 3F − 2F_1 flops per
example, where F counts the flops of a forward pass and F_1 those of the first layer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from goldilocks_zone.curvature.accumulators import Sums, orthonormalised
from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.models import chains
from goldilocks_zone.models.layers import Activation, Affine, Convolution, Kept, Residual

Meet = Callable[["Step", Tensor], None] | None
Memo = dict[int, Tensor | None] | None
EXAMPLES_PER_CHUNK = 512
ENTRIES_PER_BLOCK = 2**22  # of Ẇᵀδ, in a sweep
# Tangents of one layer that exceed this many bytes do not stay in the CPU cache.
BYTES_PER_LAYER = 12 * 2**20
FEWEST_EXAMPLES = 32  # per chunk, with convolutions


@dataclass(frozen=True)
class Ray:
    """Points α θ on a ray, for scales α, and the directions of the planes through them.

    network: a chain of layers, a `graph_tangents.Traced`, or a function (θ (D,), inputs (n, …)) → logits (n, k).
    directions: a tensor (d, D) for a function, else `Directions`.
    """

    network: Any
    theta: Tensor
    scales: Sequence[float]
    directions: Any


@dataclass
class Step:
    """Data of one layer at one point of parameter space, which `push` needs to carry tangents through the layer.

    Tensors have the precision and memory layout of the tangents. memory: the inputs of an affine layer, the slopes of
    an activation, or the saved state of another layer. delta: adjoint δ of the layer's output, if known. weights: W of
    an affine layer. bend: ε ⊙ φ″(z) of an activation, if it has a second derivative and ε is known. inner: steps of the
    layers in a residual block. pulled: Ẇᵀδ (d, …) for all directions, once computed.
    """

    layer: Any
    memory: Any  # inputs of an affine layer, slopes of an activation, saved state of pooling and reshaping
    delta: Tensor | None
    weights: Tensor | None = None
    bend: Tensor | None = None  # ε ⊙ φ″(z)
    inner: list["Step"] = field(default_factory=list)
    pulled: Tensor | None = None


def linearised(kept: list[Kept], theta: Tensor, dtype: torch.dtype) -> list[Step]:
    """One `Step` for each layer of a chain, from the records `kept` of a forward pass at θ (D,).

    `dtype` is the precision of the tangents. The steps have adjoints, which cross terms need, only if a backward pass
    has added them to the records.
    """

    def prepared(values):
        return None if values is None else chains.laid_out(values.to(dtype))

    steps = []
    for each in kept:
        layer, step = each.layer, Step(each.layer, each.forward, prepared(each.delta))
        if isinstance(layer, Residual):
            step.inner = linearised(each.inner, theta, dtype)
        elif isinstance(layer, Affine):
            step.memory, step.weights = prepared(each.forward), layer.weights(theta).to(dtype)
        elif isinstance(layer, Activation):
            step.memory, step.bend = prepared(layer.slope(each.forward)), prepared(each.bend())
        steps.append(step)
    return steps


def push(
    steps: list[Step], directions: Directions, tangents: Tensor | None = None, *, meet: Meet = None, turned: Memo = None
) -> Tensor | None:
    """Tangents of the outputs of the chain along each direction, shape (d, k, n); None if they vanish.

    `steps` are those of `linearised`. `tangents` are the tangents of the inputs of the chain; None if they vanish.
    `meet` is called with the step of each affine layer, and of each activation with a second derivative, together with
    the tangents of its inputs. `turned` is a cache of products Ẇ a of some layers, for points at which these layers
    have the same inputs a. It is a dictionary from the start of a layer's weights in θ to the product, which is None
    until computed.
    """
    turned = {} if turned is None else turned
    ours = False  # whether these tangents may be overwritten, as nothing else references them
    for step in steps:
        layer = step.layer
        if isinstance(layer, Residual):
            inside = push(step.inner, directions, tangents, meet=meet, turned=turned)
            tangents = inside if tangents is None else tangents if inside is None else tangents + inside
            ours = False
        elif isinstance(layer, Affine):
            if meet and tangents is not None:
                meet(step, tangents)
            ours = layer.weight.start not in turned
            tangents = _through(step, directions, tangents, turned)
        elif tangents is None:
            continue
        elif isinstance(layer, Activation):
            if meet and step.bend is not None:
                meet(step, tangents)
                ours = False
            tangents = tangents.mul_(step.memory) if ours else tangents * step.memory
            ours = True
        else:
            tangents = layer.tangent(step.memory, tangents)
    return tangents


def _through(step: Step, directions: Directions, tangents: Tensor | None, turned: dict) -> Tensor | None:
    """Tangents ż = W ȧ + Ẇ a + ḃ of the outputs of an affine layer along all `directions`; None if they vanish.

    `tangents` are the tangents ȧ of the layer's inputs, None if they vanish. `turned` is as in `push`.
    """
    layer, place = step.layer, step.layer.weight.start
    result = turned.get(place)
    if result is None:
        result = None if tangents is None else layer.carry(step.weights, tangents)
        if directions.moves(layer.weight):
            result = layer.turn(directions, step.memory, result)
        if place in turned:
            turned[place] = result
    if not directions.moves(layer.bias):
        return result
    shift = shifts(step, directions)
    if result is None:
        return shift.contiguous()
    return result + shift if place in turned else result.add_(shift)


def shifts(step: Step, directions: Directions) -> Tensor:
    """Tangents ḃ of the bias of an affine layer along each direction, expanded to the shape of its output tangents."""
    return step.layer.shift(directions.part(step.layer.bias), step.memory, step.weights)


def add_chunk(ray: Ray, inputs: Tensor, labels: Tensor, total: Sums, step: int) -> None:
    """Add the derivatives for a chunk of examples to the sums `total`, at all points of a ray.

    `step` is the number of directions that are pushed at a time. All points share the products Ẇ_1 x of the first
    layer. Points with the same scale, which differ in temperature, share all tangents.
    """
    chain, theta, directions = ray.network, ray.theta, ray.directions
    d, dtype = len(directions), directions.dtype
    first, points = next(chains.affine_layers(chain)).weight.start, []
    for scale, numbers in by_scale(ray.scales).items():
        point, versions = theta if scale == 1 else scale * theta, []
        outputs, forth = chains.forward(chain, point, inputs)
        for number in numbers:
            adjoint = total.adjoints(outputs[None], labels, slice(number, number + 1))[0]
            _, kept = chains.backward(forth, point, adjoint, to_inputs=False)
            total.radial_derivative[number] += chains.radial_derivative(kept)
            versions.append(linearised(kept, point, dtype))
        points.append((numbers, outputs, versions, inputs.new_empty(d, *outputs.T.shape, dtype=dtype)))
    for start in range(0, d, step):
        rows = directions.rows(start, start + step)
        turned: Memo = {first: None} if len(points) > 1 else {}
        for numbers, _, versions, along in points:
            alike = {id(each[0]): each for each in zip(*map(_flat, versions))}
            crossed = theta.new_zeros(len(numbers), d, len(rows))

            def meet(step, tangents, numbers=numbers, alike=alike, crossed=crossed):
                for number, own, added in zip(numbers, alike[id(step)], crossed):
                    if isinstance(own.layer, Activation):
                        # Σ_n ε φ″(z) ż^i ż^j
                        total.residual[number] += (tangents * own.bend).flatten(1) @ tangents.flatten(1).T
                    elif directions.moves(own.layer.weight):
                        added += cross_terms(own, directions, tangents)

            pushed = push(versions[0], rows, meet=meet, turned=turned)
            along[start : start + step] = 0 if pushed is None else pushed
            for number, added in zip(numbers, crossed):
                total.residual[number, :, start : start + step] += added
                total.residual[number, start : start + step] += added.T
    for numbers, outputs, _, along in points:
        along, ones = orthonormalised(along, total.factor), theta.new_ones(len(numbers))
        total.add(outputs.expand(len(numbers), -1, -1), labels, [(ones, along)], numbers)


def by_scale(scales: Sequence[float]) -> dict[float, list[int]]:
    """Dictionary from each distinct scale to the indices of the points with this scale; `scales` has one per point."""
    return {each: [i for i, other in enumerate(scales) if other == each] for each in scales}


def _flat(steps: list[Step]) -> Iterator[Step]:
    for each in steps:
        yield each
        yield from _flat(each.inner)


def cross_terms(step: Step, directions: Directions, tangents: Tensor) -> Tensor:
    """Cross terms C_ij = ⟨Ẇ^i, Σ_n δ ȧ^jᵀ⟩ (d, m) of an affine layer, for all d directions i and m `tangents` ȧ^j.

    `step` holds the data of the layer. `tangents` (m, …) are those of its inputs, along m of the directions. Ẇ^i are
    the entries of direction i in the weights, and δ is the adjoint of the outputs. The sum is over examples n.
    """
    layer = step.layer
    if _is_pulled(layer, directions):
        pulled = step.pulled
        if pulled is None:
            pulled = layer.pull_directions(directions, step.memory, step.delta).flatten(1)
        if len(tangents) < len(directions):
            # Keep Ẇᵀδ for the next chunk of directions.
            step.pulled = pulled
        return pulled @ tangents.flatten(1).T
    gradients = layer.weight_gradients(step.delta, tangents, step.weights)
    return directions.part(layer.weight) @ gradients.T


def _is_pulled(layer: Affine, directions: Directions) -> bool:
    """Whether Ẇᵀδ gives cross terms more cheaply than weight gradients do.

    It does if Ẇ is sparse and there are fewer directions than outputs.
    """
    return directions.is_sparse(layer) and len(directions) < layer.shape[0]


def plan(ray: Ray, inputs: Tensor, at_once: bool, memory_mib: float) -> tuple[int, int]:
    """Number of examples per chunk, and number of directions to push at a time, for sums at all points of a `ray`.

    `inputs` are a sample of the examples. Both numbers keep working memory below `memory_mib`. The number of examples
    is chosen first, such that one direction fits; the number of directions then follows from the memory that is left.
    All directions are pushed together if `at_once` is true, as for `homogeneous_sweep`, or if an activation has a
    second derivative.
    """
    chain, theta, directions, points = ray.network, ray.theta, ray.directions, len(ray.scales)
    # A GPU is efficient on large products, a CPU on products whose factors fit into its cache.
    cached = theta.device.type == "cpu"
    most = EXAMPLES_PER_CHUNK if cached else len(inputs)
    kept = chains.forward(chain, theta, inputs[:1].double())[1]
    # Tangents vanish before the first layer with parameters.
    first, *others = (number for number, each in enumerate(kept) if isinstance(each.layer, Affine | Residual))
    outputs = _entries(kept[first:])
    d, size = len(directions), directions.dtype.itemsize
    # A point keeps activations and adjoints, in double precision and in the precision of the tangents. A sweep keeps at
    # most the adjoints of one layer and of the layer before it.
    per_point = sum(outputs) * (16 + 2 * size) + inputs[0].numel() * size
    if at_once:
        per_point = 2 * max(_entries(kept[others[0] if others else first :])) * (8 + size)
    per_example = points * per_point + sum(outputs) * 16 + inputs[0].numel() * 8
    per_direction = 2 * sum(outputs) * size
    gradients = sum(layer.weights(theta).numel() for layer in chains.affine_layers(chain)) * size
    budget = memory_mib * 2**20
    if at_once or chains.is_smooth(chain):
        # Products of tangents need all directions at once. Reserve memory for Ẇᵀδ and the weight gradients of a sweep.
        left = budget - d * gradients - 4 * size * ENTRIES_PER_BLOCK
        return _between(left / (per_example + d * per_direction), most), d
    behind = [layer.shape[1] for layer in list(chains.affine_layers(chain))[1:] if _is_pulled(layer, directions)]
    pulled = points * d * sum(behind) * size
    if cached and any(isinstance(layer, Convolution) for layer in chains.affine_layers(chain)):
        # Sums over pixels are long even for few examples. In double precision, directions that go together share the
        # arrays that depend only on the examples.
        together = d if directions.dtype == torch.float64 else 1
        most = max(FEWEST_EXAMPLES, _between(BYTES_PER_LAYER / (together * max(outputs) * size), most))
    examples = _between(budget / 2 / (per_example + pulled + per_direction), most)
    in_cache = BYTES_PER_LAYER / (examples * max(outputs) * size) if cached else d
    fitting = (budget / 2) / (examples * per_direction + gradients)
    return examples, _between(min(in_cache, fitting), d)


def _between(value: float, most: int) -> int:
    return max(1, min(int(value), most))


def _entries(kept: list[Kept]) -> list[int]:
    """Number of entries per example in the output of each layer, including those inside residual blocks.

    `kept` are the records of a forward pass.
    """
    return [n for each in kept for n in (*_entries(each.inner), each.output[0].numel())]
