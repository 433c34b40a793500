"""Rules for elementwise operations of a graph, and for softmax, which is elementwise apart from sums over one axis.

`graph_points.Rule` says what the methods of a rule take and return.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from goldilocks_zone.curvature.graph_points import Point, Tangents, aligned, paired, summed_to
from goldilocks_zone.models.graphs import Operation, Reference

aten = torch.ops.aten
# Piecewise linear operations, for which torch would compute second derivatives that are all zero.
PIECEWISE = {
    *(aten.relu.default, aten.leaky_relu.default, aten.abs.default, aten.neg.default, aten.where.self),
    *(aten.maximum.default, aten.minimum.default, aten.hardtanh.default, aten.threshold.default),
    *(aten.clamp.default, aten.clamp.Tensor, aten.clamp_min.default, aten.clamp_min.Tensor, aten.clamp_max.default),
    *(aten.clamp_max.Tensor, aten.masked_fill.Scalar),
}


class Pointwise:
    """Rule for an elementwise operation f(a, b, …), of which one or several arguments have tangents."""

    owns = True

    def bends(self, operation: Operation, moving: set[int]) -> bool:
        """Whether the operation may have a second derivative: true unless it is piecewise linear."""
        return operation.target not in PIECEWISE

    def push(self, operation: Operation, point: Point) -> Tensor | None:
        """Tangents Σ ∂f/∂a ȧ (d, …) of the result, summed over the arguments a; None if no argument has tangents."""
        slopes, _ = point.once(operation.number, lambda: _derivatives(operation, point))
        total = None
        for i, slope in slopes.items():
            each = point.along(operation.args[i])
            if each is None:
                continue
            whole = aligned(each, len(operation.shape))
            if total is not None:
                total.addcmul_(whole, slope)
            elif operation.args[i].number in point.free and whole.shape[1:] == operation.shape:
                total = whole.mul_(slope)
            else:
                total = whole * slope
        return total

    def bend(self, operation: Operation, point: Point, one: Tangents, other: Tangents) -> Tensor | None:
        """Second derivative Σ δ ∂²f/∂a∂b ȧ^i ḃ^j (q, d, d) for q adjoints δ; None if no pair of arguments has tangents.

        The sum runs over all entries of the result, and over pairs of arguments a and b, in both orders. The tangents
        ȧ^i come from `one`, the tangents ḃ^j from `other`.
        """
        _, bends = point.once(operation.number, lambda: _derivatives(operation, point))
        found = None
        for (i, j), bend in bends.items():
            first, second = (operation.args[each].number for each in (i, j))
            products = [_weighted(operation, point, bend, one.get(first), other.get(second))]
            if i != j and one is not other:
                products.append(_weighted(operation, point, bend, one.get(second), other.get(first)))
            elif i != j and products[0] is not None:
                products.append(products[0].mT)
            for each in products:
                found = each if found is None else found if each is None else found + each
        return found


def _weighted(operation: Operation, point: Point, bend: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Σ δ f″ ȧ^i ḃ^j (q, d, d) over all entries, for the tangents `a` and `b` of two arguments of an operation f.

    `bend` is f″, the second derivative with respect to these two arguments. δ are the q adjoints of the result. Returns
    None if `a` or `b` is None.
    """
    if a is None or b is None:
        return None
    whole, shape = aligned(a, len(operation.shape)), b.shape[1:]
    deltas = point.adjoints[operation.number]
    return torch.stack([paired(summed_to(whole * point.cast(delta * bend), shape), b) for delta in deltas])


def _derivatives(operation: Operation, point: Point) -> tuple[dict[int, Tensor], dict[tuple[int, int], Tensor]]:
    """First and second derivatives of an elementwise operation at a point, with respect to its arguments.

    Returns two dictionaries: from the position of an argument to the first derivative, and from a pair of positions to
    the second derivative. Derivatives broadcast to the shape of the result. Second derivatives that vanish are left
    out. If the result has no adjoints at the point, second derivatives are not computed, except for a product of two
    tensors.
    """
    args, options = operation.filled(point.results.__getitem__)
    numbers = [i for i, each in enumerate(operation.args) if isinstance(each, Reference) and point.moves(each.number)]
    if operation.target is aten.mul.Tensor:
        a, b = (point.cast(each) for each in args)
        both = {(0, 1): a.new_ones(())} if len(numbers) == 2 else {}
        return {i: (b, a)[i] for i in numbers}, both
    args = [each.detach() if isinstance(each, Tensor) else each for each in args]
    for i in numbers:
        args[i] = args[i].expand(operation.shape).clone().requires_grad_()
    ours, bends, is_bent = [args[i] for i in numbers], {}, operation.number in point.adjoints
    slopes = dict(zip(numbers, _gradients(operation.target(*args, **options), ours, is_bent)))
    for i, slope in slopes.items() if is_bent else ():
        found = zip(numbers, _gradients(slope, ours, False))
        bends |= {(i, j): bend.detach() for j, bend in found if bend is not None and j >= i and bend.any()}
    return {i: point.cast(each) for i, each in slopes.items() if each is not None}, bends


def _gradients(value: Tensor | None, arguments: list[Tensor], again: bool) -> Sequence[Tensor | None]:
    """Derivatives of `value`, which depends elementwise on the `arguments`, with respect to each argument.

    The derivative is None for an argument on which the value does not depend. If `again` is true, the derivatives can
    themselves be differentiated.
    """
    if value is None or not value.requires_grad:
        return (None,) * len(arguments)
    return torch.autograd.grad(value.sum(), arguments, create_graph=again, retain_graph=True, allow_unused=True)


class Softmax:
    """Rule for the softmax p of x over one axis.

    ⟨·, ·⟩ is the sum over this axis. With A = ẋ − ⟨p, ẋ⟩ the tangent is p A, and the second derivative along the
    tangents i and j, contracted with an adjoint δ, is Σ p (δ − ⟨p, δ⟩) A^i A^j.
    """

    owns = True

    def bends(self, operation: Operation, moving: set[int]) -> bool:
        """True: there is a second derivative."""
        return True

    def push(self, operation: Operation, point: Point) -> Tensor | None:
        """Tangents p A (d, …) of the softmax, with A as in the class; None if x has no tangents."""
        along = _centred(operation, point, point.tangents)
        return None if along is None else along.mul_(point.value(operation.number))

    def bend(self, operation: Operation, point: Point, one: Tangents, other: Tangents) -> Tensor | None:
        """Second derivative Σ p (δ − ⟨p, δ⟩) A^i A^j (q, d, d), with tangents i from `one` and j from `other`.

        None if there are no adjoints or no tangents.
        """
        deltas, p, axis = point.adjoint(operation.number), point.value(operation.number), operation.args[1]
        first, second = (_centred(operation, point, each) for each in (one, other))
        if deltas is None or first is None or second is None:
            return None
        weights = [p * (each - (p * each).sum(axis, keepdim=True)) for each in deltas]
        return torch.stack([paired(first * each, second) for each in weights])


def _centred(operation: Operation, point: Point, tangents: Tangents) -> Tensor | None:
    """A = ẋ − ⟨p, ẋ⟩ (d, …) of a softmax p of x, with ẋ from `tangents`, by number; None if x has no tangent."""
    along, axis = tangents.get(operation.args[0].number), operation.args[1] % len(operation.shape)
    if along is None:
        return None
    return along - (along * point.value(operation.number)).sum(axis + 1, keepdim=True)
