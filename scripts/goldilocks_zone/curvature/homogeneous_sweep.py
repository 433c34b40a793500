"""Sweeps over radii and temperatures for little more than the cost of a single point.

Consider a positively homogeneous network of L weight layers whose biases are zero. Its activation patterns do not
depend on the scale α of the parameters. Logits scale as α^L. Tangents along weights and along the bias of the first
layer scale as α^{L−1}, and tangents along the bias of layer l as α^{L−l}. Let p(α) be the softmax outputs and y the
one-hot labels. The Hessian is H(α) = α^{2L−2} G(p(α)) + α^{L−2} Σ (p(α) − y)·K, where K are the second derivatives of
the logits at α = 1, and the Gauss–Newton matrix G has the first derivatives at α = 1. Each group of bias directions has
a similar formula with other powers of α.

Tangents are computed once for all points, streamed over chunks of examples. p depends on α and on the temperature T
only through α^L/T, so that functions of p are computed once for all points with the same α^L/T. Up to rounding, the
residuals p(α) − y of all points are linear combinations of a few basis vectors, and only these basis vectors are
contracted with the tangents. They take the place of the logit adjoints of the points, which are called q adjoints
below.
"""

import torch
from torch import Tensor

from goldilocks_zone.curvature import accumulators, tangents
from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.curvature.tangents import Ray, Step
from goldilocks_zone.models import chains
from goldilocks_zone.models.layers import Activation, Affine, Dense
from goldilocks_zone.models.losses import Loss

ROUNDING = 1e-14  # relative difference up to which powers of scales count as equal


def applies(chain: tuple, theta: Tensor) -> bool:
    """Whether the logits of a chain are homogeneous in the scale of the parameters at θ (D,).

    All layers must be homogeneous, and all biases zero.
    """
    biases = [layer.bias for layer in chains.affine_layers(chain) if layer.bias is not None]
    return all(layer.homogeneous for layer in chain) and not any(theta[bias].any() for bias in biases)


def add_chunk(ray: Ray, inputs: Tensor, labels: Tensor, total: accumulators.Sums) -> None:
    """Add the derivatives for a chunk of examples to the sums `total`, at all points of a ray.

    The network of the ray is a chain for which `applies` is true.
    """
    chain, theta, directions = ray.network, ray.theta, ray.directions
    outputs, kept = chains.forward(chain, theta, inputs)
    steps = tangents.linearised(kept, theta, directions.dtype)
    pushed, meetings = _push(steps, directions)
    depth = len(meetings) + 1
    scales, temperatures = theta.new_tensor(ray.scales), total.temperatures[:, 0, 0]
    logits = scales[:, None, None] ** depth * outputs
    firsts, numbers = alike = same(scales**depth / temperatures)
    pushed = {group: accumulators.orthonormalised(each, total.factor) for group, each in pushed.items()}
    parts = [(scales ** (depth - group), each) for group, each in pushed.items()]
    # With several groups, the proportions of their tangents depend on the scale, so points cannot be merged.
    total.add(logits, labels, parts, alike=alike if len(parts) == 1 else None)
    residuals = total.residuals(logits[firsts], labels, firsts)
    radial = (residuals * logits[firsts] / total.temperatures[firsts]).sum((1, 2))
    total.radial_derivative += depth * radial[numbers]
    residuals, coefficients = spanning(residuals, directions.dtype)
    for group, crossed in _crossed(meetings, directions, kept, theta, residuals, total.loss):
        powers = (scales ** (depth - group - 1) / temperatures)[:, None, None]
        combined = torch.tensordot(coefficients, crossed + crossed.transpose(1, 2), 1)
        total.residual += powers * combined[numbers]


def same(values: Tensor) -> tuple[list[int], list[int]]:
    """Group positive values (p,) that are equal up to rounding.

    Returns the index of the first value of each group, and the number of the group of each value.
    """
    ascending, order = values.sort()
    steps = ascending[1:] > ascending[:-1] * (1 + ROUNDING)
    groups = torch.empty_like(order).index_copy_(0, order, torch.cat([steps.new_zeros(1), steps]).cumsum(0)).tolist()
    kinds = list(dict.fromkeys(groups))
    return [groups.index(kind) for kind in kinds], [kinds.index(group) for group in groups]


def spanning(residuals: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Orthonormal basis (q, n, k) of the span of the residuals (p, n, k) of all points, and coefficients (p, q).

    Basis and coefficients reproduce the residuals to the precision of `dtype`, relative to the norm of each point's
    residuals. Points whose residuals are not finite have coefficients NaN and do not enter the basis. If no point has
    finite residuals, the basis is the residuals of the first point, with coefficients 1.
    """
    flat = residuals.flatten(1)
    # Divide by the largest entry first, as its square may underflow.
    largest = flat.abs().amax(1).clamp_min(torch.finfo(flat.dtype).tiny)
    norms = largest * (flat / largest[:, None]).norm(dim=1)
    known = torch.isfinite(norms)
    units = flat[known] / norms[known, None].clamp_min(torch.finfo(flat.dtype).tiny)
    if not len(units):
        return residuals[:1], norms.new_ones(len(residuals), 1)
    triangle = torch.linalg.qr(units.T, mode="r").R
    left, values, _ = torch.linalg.svd(triangle.T)
    rank = max(1, int((values > torch.finfo(dtype).eps * len(units)).sum()))
    # If all residuals vanish, keep one basis vector, which is zero.
    left, values = left[:, :rank], values[:rank].clamp_min(torch.finfo(flat.dtype).tiny)
    coefficients = norms.new_full((len(residuals), rank), torch.nan)
    coefficients[known] = left * values * norms[known, None]
    return ((left / values).T @ units).view(-1, *residuals.shape[1:]), coefficients


def _crossed(meetings, directions, kept, theta, adjoints, loss):
    """Yield pairs (group, cross terms (q, d, d)), one for each layer and each group of directions.

    Cross terms are the C of the module `tangents`, for q adjoints of the logits, `adjoints` (q, n, k). A layer is left
    out if no direction has entries in its weights. Groups and `meetings` are those of `_push`. `kept` are the records
    of a forward pass at θ (D,), and `loss` is the loss that gave the adjoints. For each layer, the cheapest of several
    methods is used.
    """
    seeds, coefficients = _families(adjoints, loss)
    by_point, by_family = {}, {}
    for step, groups in meetings:
        layer = step.layer
        if not directions.moves(layer.weight):
            continue
        size, (places, width) = layer.weights(theta).numel(), layer.extent(step.memory, step.weights)
        per_point = directions.entries(layer) / len(directions) if directions.is_sparse(layer) else size * places
        is_cheaper = len(adjoints) * per_point <= len(seeds) * (size * places + len(directions) * width)
        if step is meetings[-1][0] and isinstance(layer, Dense) and not directions.is_sparse(layer):
            for group, along in groups.items():
                yield group, _crossed_at_the_end(layer, directions, along, adjoints).double()
        else:
            (by_point if is_cheaper else by_family)[layer.weight.start] = step, groups
    dtype = directions.dtype
    for (step, groups), deltas in _pulled_back(kept, theta, adjoints, by_point, dtype):
        way = _crossed_sparsely if directions.is_sparse(step.layer) else _crossed_by_point
        for group, along in groups.items():
            yield group, way(step, directions, along, deltas).double()
    for (step, groups), deltas in _pulled_back(kept, theta, seeds, by_family, dtype):
        for group, along in groups.items():
            yield group, _crossed_by_family(step, directions, along, deltas, coefficients).double()


def _pulled_back(kept, theta, seeds, meetings, dtype):
    """Yield pairs of a value of `meetings` and the adjoints (q, n, …) of its layer's output, last layer first.

    `meetings` is a dictionary from the start of a layer's weights in θ to the layer's pair in the `meetings` of
    `_push`. `seeds` are adjoints (q, n, k) of the logits, which are propagated back through the records `kept` of a
    forward pass at θ (D,). The adjoints are converted to `dtype`.
    """
    left, deltas = dict(meetings), list(seeds)
    for each in reversed(kept):
        if isinstance(each.layer, Affine) and each.layer.weight.start in left:
            yield left.pop(each.layer.weight.start), torch.stack([delta.to(dtype) for delta in deltas])
        if not left:
            return
        deltas = [each.layer.adjoint(theta, each.forward, delta) for delta in deltas]


def _push(steps: list[Step], directions: Directions) -> tuple[dict[int, Tensor], list[tuple[Step, dict]]]:
    """Tangents of the logits, by group of directions, and for each affine layer the tangents of its inputs.

    A group holds those entries of the directions whose tangents scale by the same power of α. Group 1 has the weights
    and the first bias; group l > 1 has the l-th bias. The second result is the list of `meetings`: one pair for each
    affine layer, of its step and a dictionary from group to the tangents of its inputs. The first affine layer is left
    out, because its inputs have no tangents. `steps` are those of `tangents.linearised`. Tangents have the layout of
    `tangents.push`.
    """
    groups, meetings, number, before = {}, [], 0, None
    for step in steps:
        layer = step.layer
        if isinstance(layer, Affine):
            number += 1
            if number > 1:
                meetings.append((step, dict(groups)))
            groups = _through(step, directions, groups, number)
        elif isinstance(layer, Activation):
            # Nothing else references the outputs of an affine layer, so they may be overwritten.
            multiply = Tensor.mul_ if isinstance(before, Affine) else Tensor.mul
            groups = {group: multiply(each, step.memory) for group, each in groups.items()}
        else:
            groups = {group: layer.tangent(step.memory, each) for group, each in groups.items()}
        before = layer
    return groups, meetings


def _through(step: Step, directions: Directions, groups: dict[int, Tensor], number: int) -> dict[int, Tensor]:
    layer = step.layer
    carried = {group: layer.carry(step.weights, each) for group, each in groups.items()}
    if directions.moves(layer.weight):
        carried[1] = layer.turn(directions, step.memory, carried.get(1))
    if directions.moves(layer.bias):
        shift = tangents.shifts(step, directions)
        carried[number] = carried[number].add_(shift) if number in carried else shift.contiguous()
    return carried


def _families(adjoints: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Logit adjoints (f, n, k), equal at all n examples, that span the `adjoints` (q, n, k) at each example.

    They are called families. Returns the families and the coefficients (q, n, f): at each example, the sum of
    coefficient times family gives the `adjoints`. There are f = k − 1 families if the `loss` is shift-invariant, and k
    otherwise.
    """
    seeds, coefficients = torch.eye(adjoints.shape[2], dtype=adjoints.dtype, device=adjoints.device), adjoints
    if loss.shift_invariant:
        # Adjoints sum to zero over the k classes, so k − 1 families suffice.
        seeds, coefficients = seeds[:-1] - seeds[-1:], adjoints[..., :-1]
    return seeds[:, None].expand(-1, *adjoints.shape[1:]), coefficients


def _crossed_at_the_end(layer: Dense, directions: Directions, along: Tensor, adjoints: Tensor) -> Tensor:
    """Cross terms (q, d, d) of the last layer, whose output adjoints are the logit `adjoints` (q, n, k).

    `along` (d, i, n) are the tangents of the inputs of the layer along the `directions`.
    """
    p, n, k = adjoints.shape
    stacked = adjoints.to(along.dtype).transpose(1, 2).reshape(p * k, n)
    gradients = (along.flatten(0, 1) @ stacked.T).view(len(along), -1, p, k)
    return torch.matmul(directions.part(layer.weight), gradients.permute(2, 3, 1, 0).reshape(p, -1, len(along)))


def _crossed_by_point(step: Step, directions: Directions, along: Tensor, deltas: Tensor) -> Tensor:
    """Cross terms (q, d, d) of a layer, from q adjoints `deltas` (q, n, …) of its output.

    `along` (d, …) are the tangents of the layer's inputs along the `directions`, in the layout of `tangents.push`.
    """
    weights = directions.part(step.layer.weight)
    gradients = (step.layer.weight_gradients(chains.laid_out(delta), along, step.weights) for delta in deltas)
    return torch.stack([weights @ each.T for each in gradients])


def _crossed_sparsely(step: Step, directions: Directions, along: Tensor, deltas: Tensor) -> Tensor:
    """Cross terms (q, d, d) of a dense layer, from q adjoints `deltas` (q, n, o) of its output.

    `along` (d, i, n) are the tangents of the layer's inputs along the `directions`. Only the non-zero entries of Ẇ, the
    directions' entries in the weights, are used.
    """
    (p, n, _), d = deltas.shape, len(along)
    deltas = deltas.permute(2, 0, 1).contiguous()
    result = along.new_zeros(d, p * d)
    for i, (outputs, values) in directions.by_input(step.layer).items():
        products = deltas.index_select(0, outputs).view(-1, n) @ along[:, i].T
        result.addmm_(values, products.view(len(outputs), p * d))
    return result.view(d, p, d).transpose(0, 1)


def _crossed_by_family(step: Step, directions: Directions, along: Tensor, deltas: Tensor, weights: Tensor) -> Tensor:
    """Cross terms (q, d, d) of a layer for q logit adjoints, from the adjoints of f families at its output.

    Families are those of `_families`, and `weights` (q, n, f) their coefficients. `deltas` (f, n, …) are the families'
    adjoints δ of the layer's output, `along` (d, …) the tangents ȧ of its inputs, and Ẇ the entries of the `directions`
    in its weights. The cross terms are sums of ⟨Ẇᵀδ, ȧ⟩ over examples and families, weighted by the coefficients.
    """
    deltas = deltas.transpose(0, 1).contiguous()
    (n, f), d = deltas.shape[:2], len(directions)
    weights = weights.to(along.dtype).flatten(1)
    along = step.layer.by_example(along).contiguous().transpose(1, 2)
    result = along.new_empty(len(weights), d, d)
    block = max(1, tangents.ENTRIES_PER_BLOCK // (n * f * along.shape[1]))
    for start in range(0, d, block):
        pulled = step.layer.pull_stacked(directions, slice(start, start + block), step.memory, deltas)
        products = torch.bmm(pulled, along).view(n * f, -1)
        result[:, start : start + block] = (weights @ products).view(len(weights), -1, d)
    return result
