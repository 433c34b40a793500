"""Rules for bilinear operations of a graph: matrix products and convolutions.

Their second derivative ⟨δ, Ȧ^i Ḃ^j + Ȧ^j Ḃ^i⟩ along the directions i and j follows from products of the adjoints δ with
the tangents of one factor, paired with the tangents of the other factor. The products for q adjoints are stacked, so
that each tangent is read only once. `graph_points.Rule` says what the methods of a rule take and return.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from goldilocks_zone.curvature.graph_points import (
    Filled,
    Point,
    Tangents,
    aligned,
    by_examples,
    paired,
    paired_with_each,
)
from goldilocks_zone.models.graphs import Operation, Reference

aten = torch.ops.aten
ENTRIES_AT_ONCE = 2**22  # of products of adjoints with tangents


class _Bilinear(ABC):
    """Rule for an operation f(a, b) that is linear in each operand."""

    owns = True

    @abstractmethod
    def operands(self, operation: Operation) -> tuple[Reference, Reference]:
        """References to the operands a and b among the arguments of the operation."""

    @abstractmethod
    def crossed(self, operation: Operation, point: Point, deltas: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Cross terms ⟨δ, f(ȧ^i, ḃ^j)⟩ (q, d, d) of tangents `a` and `b` of the operands.

        The terms are for the q adjoints δ = `deltas` of the result.
        """

    def bends(self, operation: Operation, moving: set[int]) -> bool:
        """Whether both operands have tangents, so that there is a second derivative."""
        return all(each.number in moving for each in self.operands(operation))

    def bend(self, operation: Operation, point: Point, one: Tangents, other: Tangents) -> Tensor | None:
        """Second derivatives ⟨δ, f(ȧ^i, ḃ^j) + f(ȧ^j, ḃ^i)⟩ (q, d, d), with tangents i from `one` and j from `other`.

        None if there are no adjoints δ, or if in each of the two terms an operand has no tangents.
        """
        deltas = point.adjoint(operation.number)
        if deltas is None:
            return None
        first, second = (each.number for each in self.operands(operation))
        (a, b), (c, d) = ((each.get(first), each.get(second)) for each in (one, other))
        found = None if a is None or d is None else self.crossed(operation, point, deltas, a, d)
        if one is other:
            return None if found is None else found + found.mT
        turned = None if b is None or c is None else self.crossed(operation, point, deltas, c, b).mT
        return turned if found is None else found if turned is None else found + turned


class Product(_Bilinear):
    """Rule for a matrix product A B, possibly batched, possibly added to a third tensor."""

    def operands(self, operation: Operation) -> tuple[Reference, Reference]:
        """References to the factors A and B."""
        return operation.args[-2:]

    def push(self, operation: Operation, point: Point) -> Tensor | None:
        """Tangents Ȧ B + A Ḃ of the result, plus the tangents of the third tensor if there is one.

        The factors alpha and beta of the operation multiply the product and the third tensor.
        """
        *added, first, second = operation.args
        alpha, beta = (operation.kwargs.get(name, 1) for name in ("alpha", "beta"))
        a, b = point.along(first), point.along(second)
        total = None if a is None else _times(a, point.value(second.number))
        sparse = None if b is None else point.sparse(second.number, 0)
        if b is not None:
            left = point.value(first.number)
            if sparse:
                total = left.new_zeros(len(b), *operation.shape) if total is None else total
                _add_sparse(total, left, sparse)
            elif total is not None and left.ndim == 2:
                total.baddbmm_(left.expand(len(b), -1, -1), b)
            else:
                turned = _times(left, b)
                total = turned if total is None else total.add_(turned)
        if total is not None and alpha != 1:
            total *= alpha
        shift = point.along(added[0]) if added else None
        if shift is not None:
            shift = beta * aligned(shift, len(operation.shape))
            total = shift.expand(-1, *operation.shape) if total is None else total.add_(shift)
        return total

    def crossed(self, operation: Operation, point: Point, deltas: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Cross terms ⟨δ, Ȧ^i Ḃ^j⟩ (q, d, d) of the factors' tangents `a` and `b` with the q adjoints δ."""
        sparse, alpha = point.sparse(operation.args[-1].number, 1), operation.kwargs.get("alpha", 1)
        (d, n), o = a.shape[:2], b.shape[-1]
        if sparse and d * n < o * (n + d):
            pulled = (_add_sparse(torch.zeros_like(a), delta, sparse) for delta in deltas)
            return alpha * torch.stack([paired(a, each) for each in pulled])
        return alpha * _crossed(a, b, deltas)


def _times(first: Tensor, second: Tensor) -> Tensor:
    """Products `first` @ `second` for all d directions, where one of the two factors is tangents (d, …).

    The other factor is a matrix or a batch of matrices, shared by all directions.
    """
    if second.ndim == 2 and first.is_contiguous():
        return (first.reshape(-1, first.shape[-1]) @ second).view(*first.shape[:-1], -1)
    if {first.ndim, second.ndim} != {3, 4} or first.is_cuda:
        return torch.matmul(first, second)
    # For factors with different numbers of axes, torch would copy the batch for each direction.
    along = first if first.ndim == 4 else second
    found = along.new_empty(*along.shape[:2], first.shape[-2], second.shape[-1])
    for number, each in enumerate(found):
        torch.bmm(*(factor[number] if factor is along else factor for factor in (first, second)), out=each)
    return found


def _add_sparse(total: Tensor, matrix: Tensor, filled: Filled) -> Tensor:
    """Add the products of a matrix (n, i) with the transposes of d sparse matrices (o, i) to `total` (d, n, o).

    `filled` holds the rows of the sparse matrices that have non-zero entries.
    """
    directions, places, rows = filled
    total[directions, :, places] += matrix.new_zeros(len(rows), len(matrix)).addmm_(rows, matrix.T)
    return total


def _crossed(a: Tensor, b: Tensor, deltas: Tensor) -> Tensor:
    """Cross terms ⟨δ, Ȧ^i Ḃ^j⟩ (q, d, d) of tangents `a` and `b` of two factors with `deltas` δ (q, …).

    Of the products δ Ḃᵀ and Ȧᵀ δ, the smaller is computed. It is then paired with the tangents of the other factor, and
    has their memory layout.
    """
    if a.shape[-2] < b.shape[-1]:
        return torch.stack([paired(a, _times(delta, b.mT)) for delta in deltas])
    q, turned = len(deltas), b.stride(-1) != 1 and b.stride(-2) == 1
    stacked, found = deltas.movedim(0, -2).flatten(-2), []
    for some in a.split(_rows(b, q)):
        if turned:
            products = _times(stacked.mT, some).unflatten(-2, (q, -1)).movedim(-3, 1)
        else:
            products = _times(some.mT, stacked).unflatten(-1, (q, -1)).movedim(-2, 1)
        found.append(paired_with_each(products, b.mT if turned else b))
    return torch.cat(found, 1)


def _rows(along: Tensor, q: int) -> int:
    """Number of tangents that are multiplied by q adjoints at a time, at least one.

    The products of so many tangents have no more entries than the tangents `along`, with which they are paired, or than
    ENTRIES_AT_ONCE if this is larger.
    """
    return max(1, max(ENTRIES_AT_ONCE, along.numel()) // (q * along[0].numel()))


class Convolution(_Bilinear):
    """Rule for a convolution, of any dimension, grouping or stride, transposed or not."""

    def operands(self, operation: Operation) -> tuple[Reference, Reference]:
        """References to the image a and the weights W."""
        return operation.args[:2]

    def push(self, operation: Operation, point: Point) -> Tensor | None:
        """Tangents W ∗ ȧ + Ẇ ∗ a + ḃ of the result."""
        image, weight, bias, *options = operation.args
        a, w, shift = map(point.along, (image, weight, bias))
        total = None if w is None else _turned(point.value(image.number), w, options)
        if a is not None:
            moved = aten.convolution.default(by_examples(a).flatten(0, 1), point.value(weight.number), None, *options)
            moved = by_examples(moved.unflatten(0, (a.shape[1], len(a))))
            total = moved if total is None else total.add_(moved)
        if shift is not None:
            shift = shift.view(len(shift), 1, -1, *(1,) * (len(operation.shape) - 2))
            total = shift.expand(-1, *operation.shape) if total is None else total.add_(shift)
        return total

    def crossed(self, operation: Operation, point: Point, deltas: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Cross terms ⟨δ, Ẇ^j ∗ ȧ^i⟩ (q, d, d) of tangents `a` of the image and `b` of W, for q adjoints δ.

        They are scalar products of Ẇ^j with the gradient with respect to W of a convolution of the image ȧ^i. The q
        adjoints are stacked as output channels.
        """
        *options, groups = operation.args[3:]
        transposed, weight = options[3], point.value(operation.args[1].number)
        q, axis = len(deltas), 1 if transposed else 0
        stacked = deltas.unflatten(2, (groups, -1)).permute(1, 2, 0, *range(3, deltas.ndim + 1)).flatten(1, 3)
        shape = list(weight.shape)
        shape[axis] *= q
        stand_in = weight.new_empty(1).expand(shape)
        back, more = aten.convolution_backward.default, (None, *options, groups, [False, True, False])
        inner = (1, q, -1) if transposed else (groups, q, -1)

        def gradients(image: Tensor) -> Tensor:
            found = back(stacked, image, stand_in, *more)[1].unflatten(axis, inner)
            return found.movedim(axis + 1, 0).flatten(axis + 1, axis + 2)

        rows = [paired_with_each(torch.stack([gradients(each) for each in some]), b) for some in a.split(_rows(b, q))]
        return torch.cat(rows, 1)


def _turned(image: Tensor, weights: Tensor, options: Sequence) -> Tensor:
    """Convolutions (d, n, o, …) of an image (n, i, …) with all d tangents `weights` Ẇ (d, *shape) at once.

    The Ẇ are stacked as output channels. `options` are the arguments of aten.convolution after the bias.
    """
    *_, transposed, _, groups = options
    if transposed:
        stacked = weights.transpose(0, 1).flatten(1, 2)
    else:
        # Output channels of a group must be contiguous.
        stacked = weights.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 2)
    found = aten.convolution.default(image, stacked, None, *options).unflatten(1, (groups, len(weights), -1))
    return by_examples(found[:, 0] if groups == 1 else found.transpose(1, 2).flatten(2, 3))
