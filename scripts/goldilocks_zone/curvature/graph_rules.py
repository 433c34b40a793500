"""Rules by which tangents go through the operations of a graph, and what these add to the second derivative.

For an operation y = f(a, b, …) with tangents ȧ, ḃ, … along d directions and the adjoint δ of y, a rule gives ẏ and the
matrix ⟨δ, f″[ȧ^i ḃ^j …]⟩ over all pairs of directions. The sum of these matrices over all operations is the part H′ of
the Hessian. Tangents are (d, *shape); in memory those of images have the examples before the directions.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap
from torch.utils import _pytree as pytree

from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.models.graphs import Graph, Operation, Reference, Weights
from goldilocks_zone.models.layers import Dense

aten = torch.ops.aten
Tangent = Tensor | Sequence[Tensor | None] | dict[int, Tensor] | None


class Point:
    """A point of a graph: results of its operations, adjoints of some, and tangents of those that are still needed.

    Results and adjoints are in the precision of the point, values and tangents in that of the directions. `free`:
    numbers of the tangents that the operation at work may overwrite.
    """

    def __init__(self, graph: Graph, results: list, directions: Directions, weights: dict[int, Weights]):
        self.graph, self.results, self.dtype = graph, results, directions.dtype
        self._directions, self._weights = directions, weights
        self.adjoints: dict[int, Tensor] = {}
        self.tangents: dict[int, Tangent] = {}
        self.free: set[int] = set()
        self._values: dict[int, object] = {}

    def value(self, number: int) -> object:
        """The result of an operation in the precision of the tangents."""
        if number not in self._values:
            self._values[number] = pytree.tree_map(self.cast, self.results[number])
        return self._values[number]

    def cast(self, value: object) -> object:
        """A tensor without gradients, of real numbers in the precision of the tangents; anything else as it is."""
        if not isinstance(value, Tensor):
            return value
        value = value.detach()
        return value.to(self.dtype) if value.is_floating_point() else value

    def adjoint(self, number: int) -> Tensor | None:
        """δ of a result in the precision of the tangents; None where nothing depends on it, or no rule asks for it."""
        return None if number not in self.adjoints else self.cast(self.adjoints[number])

    def sparse(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Ẇᵀ and Ẇ of a result W (i, o), (d · o, i) and (d · i, o), where they are sparse; else None."""
        weights = self._weights.get(number)
        if weights is None or not self._directions.is_sparse(layer := layer_of(weights)):
            return None
        rows, columns = self._directions.sparse_rows(layer), self._directions.sparse_columns(layer)
        return (rows, columns) if weights.turned else (columns, rows)

    def along(self, argument: object) -> Tensor | None:
        """The tangent of an argument; None of a constant."""
        return self.tangents.get(argument.number) if isinstance(argument, Reference) else None


def layer_of(weights: Weights) -> Dense:
    """A matrix of parameters as the layer that it would be in a chain."""
    return Dense(weights.place, None, tuple(weights.shape))


class Rule(Protocol):
    """bends: whether the operation has a second derivative; owns: whether its tangents share no memory with others."""

    bends: bool
    owns: bool

    def push(self, operation: Operation, point: Point) -> tuple[Tangent, Tensor | None]:
        """The tangent of the operation's result, and what it adds to H′ (d, d), None for nothing."""


def paired(first: Tensor, second: Tensor) -> Tensor:
    """⟨first^i, second^j⟩ (d, d) of tangents with the same order in memory."""
    return first.reshape(len(first), -1) @ second.reshape(len(second), -1).T


def by_examples(tangent: Tensor) -> Tensor:
    """A tangent (n, d, …), which is how those of images lie in memory."""
    return tangent.transpose(0, 1)


def aligned(tangent: Tensor, ndim: int) -> Tensor:
    """A tangent (d, *shape) with ones before its shape where broadcasting to `ndim` axes puts them."""
    missing = ndim + 1 - tangent.ndim
    return tangent if not missing else tangent.reshape(len(tangent), *(1,) * missing, *tangent.shape[1:])


def summed_to(values: Tensor, shape: torch.Size) -> Tensor:
    """Sums (d, *shape) of values (d, …) over the axes along which the shape was broadcast."""
    missing = values.ndim - 1 - len(shape)
    stretched = [i for i, size in enumerate(shape, 1 + missing) if size == 1 and values.shape[i] > 1]
    axes = [*range(1, 1 + missing), *stretched]
    return (values.sum(axes, keepdim=True) if axes else values).reshape(len(values), *shape)


class Linear:
    """Linear in the first argument, a tensor or several, whatever the others are."""

    bends = owns = False

    def push(self, operation: Operation, point: Point) -> tuple[Tangent, None]:
        """The same operation on the tangents."""
        first, *others = operation.args
        if operation.target is aten._to_copy.default:
            return point.along(first), None
        leaves, spec = pytree.tree_flatten(first)
        along = [point.along(each) for each in leaves]
        moving = [
            torch.zeros_like(point.value(each.number)) if given is None else given for each, given in zip(leaves, along)
        ]
        others, options = pytree.tree_map(
            lambda leaf: point.value(leaf.number) if isinstance(leaf, Reference) else leaf, (others, operation.kwargs)
        )
        target = AS_COPIES.get(operation.target, operation.target)
        axes = pytree.tree_unflatten([None if each is None else 0 for each in along], spec)
        push = vmap(lambda given: target(given, *others, **options), in_dims=(axes,))
        return push(pytree.tree_unflatten(moving, spec)), None


class Sum:
    """a ± b, with a factor on b or not."""

    bends = owns = False

    def push(self, operation: Operation, point: Point) -> tuple[Tensor, None]:
        """ȧ ± ḃ."""
        factor, ndim = SUMS[operation.target] * operation.kwargs.get("alpha", 1), len(operation.shape)
        a, b = (None if each is None else aligned(each, ndim) for each in map(point.along, operation.args[:2]))
        if a is None:
            total = b if factor == 1 else b * factor
        elif b is None:
            total = a
        elif operation.args[0].number in point.free and a.shape[1:] == operation.shape:
            total = a.add_(b, alpha=factor)
        else:
            total = a.add(b, alpha=factor)
        return total.expand(len(total), *operation.shape), None


class Pointwise:
    """Element by element, of one or several tensors that move."""

    bends = owns = True

    def push(self, operation: Operation, point: Point) -> tuple[Tensor | None, Tensor | None]:
        """Σ ∂f/∂a ȧ, and Σ δ ∂²f/∂a∂b ȧ^i ḃ^j."""
        numbers = [i for i, each in enumerate(operation.args) if point.along(each) is not None]
        slopes, bends = _derivatives(operation, point, numbers)
        along = [aligned(point.along(operation.args[i]), len(operation.shape)) for i in numbers]
        shapes = [point.along(operation.args[i]).shape[1:] for i in numbers]
        found, delta = None, point.adjoints.get(operation.number)
        for (i, j), bend in bends.items() if delta is not None else ():
            weighted = summed_to(along[i] * point.cast(delta * bend), shapes[j])
            product = paired(weighted, point.along(operation.args[numbers[j]]))
            product = product if i == j else product + product.T
            found = product if found is None else found.add_(product)
        total = None
        for i, each, slope in zip(numbers, along, slopes):
            if slope is None:
                continue
            if total is not None:
                total.addcmul_(each, slope)
            elif operation.args[i].number in point.free and each.shape[1:] == operation.shape:
                total = each.mul_(slope)
            else:
                total = each * slope
        return total, found


def _derivatives(operation: Operation, point: Point, numbers: list[int]) -> tuple[list, dict]:
    """First derivatives by the arguments of these numbers, in the shape of the result, and second ones by pairs."""
    args, options = operation.filled(point.results.__getitem__)
    args = [each.detach() if isinstance(each, Tensor) else each for each in args]
    for i in numbers:
        args[i] = args[i].expand(operation.shape).clone().requires_grad_()
    ours = [args[i] for i in numbers]
    slopes, bends = _gradients(operation.target(*args, **options), ours), {}
    for i, slope in enumerate(slopes):
        found = enumerate(_gradients(slope, ours))
        bends |= {(i, j): bend.detach() for j, bend in found if bend is not None and j >= i and bend.any()}
    return [None if each is None else point.cast(each) for each in slopes], bends


def _gradients(value: Tensor | None, arguments: list[Tensor]) -> Sequence[Tensor | None]:
    if value is None or not value.requires_grad:
        return (None,) * len(arguments)
    return torch.autograd.grad(value.sum(), arguments, create_graph=True, allow_unused=True)


class Product:
    """A product of matrices A B, or of one by one of several, added to a third tensor or not."""

    bends = owns = True

    def push(self, operation: Operation, point: Point) -> tuple[Tensor, Tensor | None]:
        """Ȧ B + A Ḃ, and ⟨δ, Ȧ^i Ḃ^j + Ȧ^j Ḃ^i⟩."""
        *added, first, second = operation.args
        alpha, beta = (operation.kwargs.get(name, 1) for name in ("alpha", "beta"))
        a, b = point.along(first), point.along(second)
        total = None if a is None else _times(a, point.value(second.number))
        sparse = None if b is None else point.sparse(second.number)
        if b is not None:
            left = point.value(first.number)
            if sparse:
                turned = (sparse[0] @ left.T).view(len(b), -1, len(left)).mT
                total = turned if total is None else total.add_(turned)
            elif total is not None and left.ndim == 2:
                total.baddbmm_(left.expand(len(b), -1, -1), b)
            else:
                total = torch.matmul(left, b) if total is None else total.add_(torch.matmul(left, b))
        if total is not None and alpha != 1:
            total *= alpha
        shift = point.along(added[0]) if added else None
        if shift is not None:
            shift = beta * aligned(shift, len(operation.shape))
            total = shift.expand(-1, *operation.shape) if total is None else total.add_(shift)
        delta = point.adjoint(operation.number)
        if a is None or b is None or delta is None:
            return total, None
        if sparse:
            found = alpha * paired(a, (sparse[1] @ delta.T).view(len(b), -1, len(delta)).mT)
        else:
            found = alpha * _crossed(a, b, delta)
        return total, found + found.T


def _times(tangents: Tensor, matrix: Tensor) -> Tensor:
    """Tangents (d, …, n, i) times (…, i, o)."""
    if matrix.ndim == 2 and tangents.is_contiguous():
        return (tangents.reshape(-1, tangents.shape[-1]) @ matrix).view(*tangents.shape[:-1], -1)
    return torch.matmul(tangents, matrix)


def _crossed(a: Tensor, b: Tensor, delta: Tensor) -> Tensor:
    """⟨δ, Ȧ^i Ḃ^j⟩ (d, d): the smaller product first, in the order of the other factor in memory."""
    if a.shape[-2] < b.shape[-1]:
        return paired(a, torch.matmul(delta, b.mT))
    if b.stride(-1) != 1 and b.stride(-2) == 1:
        return paired(torch.matmul(delta.mT, a), b.mT)
    return paired(torch.matmul(a.mT, delta), b)


class Convolution:
    """A convolution of any kind."""

    bends = owns = True

    def push(self, operation: Operation, point: Point) -> tuple[Tensor, Tensor | None]:
        """W ∗ ȧ + Ẇ ∗ a + ḃ, and ⟨δ, Ẇ^i ∗ ȧ^j + Ẇ^j ∗ ȧ^i⟩."""
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
        delta = point.adjoint(operation.number)
        if a is None or w is None or delta is None:
            return total, None
        back, more = aten.convolution_backward.default, (None, *options, [False, True, False])
        found = paired(torch.stack([back(delta, each, point.value(weight.number), *more)[1] for each in a]), w)
        return total, found + found.T


def _turned(image: Tensor, weights: Tensor, options: Sequence) -> Tensor:
    """Convolutions of an image (n, i, …) by each Ẇ (d, *shape) at once, as further output channels: (d, n, o, …)."""
    *_, transposed, _, groups = options
    if transposed:
        stacked = weights.transpose(0, 1).flatten(1, 2)
    else:
        # The outputs of a group stand together.
        stacked = weights.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 2)
    found = aten.convolution.default(image, stacked, None, *options).unflatten(1, (groups, len(weights), -1))
    return by_examples(found[:, 0] if groups == 1 else found.transpose(1, 2).flatten(2, 3))


class MaxPool:
    """The largest entries of windows of images, and their numbers as the second result: a fixed choice."""

    bends, owns = False, True

    def push(self, operation: Operation, point: Point) -> tuple[dict[int, Tensor], None]:
        """The tangents of the entries chosen."""
        along, chosen = by_examples(point.along(operation.args[0])).flatten(3), point.results[operation.number][1]
        numbers = chosen.flatten(2)[:, None].expand(-1, along.shape[1], -1, -1)
        return {0: by_examples(along.gather(3, numbers).unflatten(3, chosen.shape[2:]))}, None


class Local:
    """Any operation, differentiated by torch."""

    owns = False

    def __init__(self, bends: bool):
        self.bends = bends

    def push(self, operation: Operation, point: Point) -> tuple[Tangent, Tensor | None]:
        """Its forward derivatives, and those of its backward pass."""
        moving = list(dict.fromkeys(i for i in operation.sources if point.tangents.get(i) is not None))
        several = () if operation.shape is not None else point.results[operation.number]
        parts = [i for i, each in enumerate(several) if _is_real(each)]

        def function(*given: Tensor) -> tuple[Tensor, ...]:
            held = dict(zip(moving, given))
            args, options = operation.filled(lambda i: held[i] if i in held else point.value(i))
            result = operation.target(*args, **options)
            return tuple(result[i] for i in parts) if parts else (result,)

        values, along = (tuple(map(each, moving)) for each in (point.value, point.tangents.__getitem__))
        found = vmap(lambda *each: jvp(function, values, each)[1])(*along)
        tangents = dict(zip(parts, found)) if parts else found[0]
        numbers = {point.graph.operations[i].args[1]: i for i in operation.users} if parts else {}
        deltas = [point.adjoint(numbers.get(i, -1)) for i in parts] if parts else [point.adjoint(operation.number)]
        if not self.bends or all(each is None for each in deltas):
            return tangents, None
        filled = tuple(torch.zeros_like(one[0]) if each is None else each for one, each in zip(found, deltas))

        def pulled(*given: Tensor) -> tuple[Tensor, ...]:
            return vjp(function, *given)[1](filled)

        turned = vmap(lambda *each: jvp(pulled, values, each)[1])(*along)
        return tangents, sum(paired(one, other) for one, other in zip(turned, along))


def _is_real(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


class Part:
    """One of several results."""

    bends = owns = False

    def push(self, operation: Operation, point: Point) -> tuple[Tangent, None]:
        """Its tangent."""
        source, number = operation.args
        whole = point.along(source)
        return whole.get(number) if isinstance(whole, dict) else whole[number], None


AS_COPIES = {aten.view.default: aten.reshape.default, aten._unsafe_view.default: aten.reshape.default}
SUMS = {aten.add.Tensor: 1, aten.sub.Tensor: -1}
LINEAR, CHOICE = Linear(), Local(bends=False)
RULES: dict[Callable, Rule] = {
    operator.getitem: Part(),
    aten.convolution.default: Convolution(),
    aten.max_pool2d_with_indices.default: MaxPool(),
    **dict.fromkeys(SUMS, Sum()),
    **dict.fromkeys((aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default), Product()),
    **dict.fromkeys(
        (
            *(aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.permute.default, aten.t.default),
            *(aten.transpose.int, aten.expand.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims),
            *(aten.unsqueeze.default, aten.slice.Tensor, aten.select.int, aten.unbind.int, aten.split.Tensor),
            *(aten.unsafe_split.Tensor, aten.split_with_sizes.default, aten.diagonal.default, aten.alias.default),
            *(aten.cat.default, aten.stack.default, aten.clone.default, aten._to_copy.default, aten.repeat.default),
            *(aten.index.Tensor, aten.index_select.default, aten.gather.default, aten.embedding.default),
            *(aten.flip.default, aten.roll.default, aten.tril.default, aten.triu.default, aten.cumsum.default),
            *(aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim, aten.neg.default),
            *(aten.constant_pad_nd.default, aten.reflection_pad2d.default, aten.replication_pad2d.default),
            *(aten.avg_pool2d.default, aten._adaptive_avg_pool2d.default, aten.pixel_shuffle.default),
            *(aten.upsample_nearest2d.default, aten.upsample_bilinear2d.default, aten.im2col.default),
        ),
        LINEAR,
    ),
    **dict.fromkeys(
        (
            *(aten.max.default, aten.max.dim, aten.min.default, aten.min.dim, aten.amax.default, aten.amin.default),
            *(aten.sort.default, aten.sort.stable, aten.topk.default, aten.median.dim),
            *(aten.slice_scatter.default, aten.select_scatter.default, aten.index_put.default),
        ),
        CHOICE,
    ),
}
POINTWISE, LOCAL = Pointwise(), Local(bends=True)


def rule_of(operation: Operation) -> Rule:
    """The rule of an operation that moves."""
    if operation.target in RULES:
        return RULES[operation.target]
    plain = operation.sources == [each.number for each in operation.args if isinstance(each, Reference)]
    pointwise = torch.Tag.pointwise in getattr(operation.target, "tags", ()) and operation.shape is not None
    return POINTWISE if pointwise and plain else LOCAL
