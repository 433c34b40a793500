"""Rules that push tangents through the operations of a graph, and compute each operation's part of H′.

For an operation y = f(a, b, …), let ȧ, ḃ, … be the tangents of its arguments along d directions, and δ an adjoint of y.
A rule gives the tangents ẏ. It also gives a matrix (d, d): the second derivatives of f along all pairs of directions,
contracted with δ. The sum of these matrices over all operations is the second derivative of ⟨outputs, adjoint⟩ along
the directions. With the loss's derivative as the adjoint of the outputs, it is the part H′ of the Hessian.
`graph_points.Rule` says what the methods of a rule take and return.
"""

import operator
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap
from torch.utils import _pytree as pytree

from goldilocks_zone.curvature.graph_elementwise import Pointwise, Softmax
from goldilocks_zone.curvature.graph_points import Point, Rule, Tangent, Tangents, aligned, by_examples, paired
from goldilocks_zone.curvature.graph_products import Convolution, Product
from goldilocks_zone.models.graphs import PARAMETERS, Graph, Operation, Reference

aten = torch.ops.aten


class _Straight:
    """Rule for an operation without a second derivative."""

    owns = False

    def bends(self, operation: Operation, moving: set[int]) -> bool:
        """Always False, as there is no second derivative."""
        return False

    def bend(self, operation: Operation, point: Point, one: Tangents, other: Tangents) -> None:
        """Always None, as there is no second derivative."""


class Linear(_Straight):
    """Rule for an operation that is linear in its first argument, which is one tensor or a list of tensors.

    The other arguments, such as indices, are treated as constants.
    """

    def push(self, operation: Operation, point: Point) -> Tangent:
        """Tangents of the result: the operation applied to the tangents of the first argument."""
        first, *others = operation.args
        if operation.target in VIEWS:
            return VIEWS[operation.target](point.along(first), operation)
        leaves, spec = pytree.tree_flatten(first)
        along = [point.along(each) for each in leaves]
        moving = [
            torch.zeros_like(point.value(each.number)) if given is None else given for each, given in zip(leaves, along)
        ]
        others, options = pytree.tree_map(
            lambda leaf: point.value(leaf.number) if isinstance(leaf, Reference) else leaf, (others, operation.kwargs)
        )
        axes = pytree.tree_unflatten([None if each is None else 0 for each in along], spec)
        push = vmap(lambda given: operation.target(given, *others, **options), in_dims=(axes,))
        return push(pytree.tree_unflatten(moving, spec))


class Sum(_Straight):
    """Rule for a + s b or a − s b, where the factor s is usually 1."""

    def push(self, operation: Operation, point: Point) -> Tensor | None:
        """Tangents ȧ + s ḃ or ȧ − s ḃ (d, …) of the result; None if neither a nor b has tangents."""
        factor, ndim = SUMS[operation.target] * operation.kwargs.get("alpha", 1), len(operation.shape)
        a, b = (None if each is None else aligned(each, ndim) for each in map(point.along, operation.args[:2]))
        if b is None:
            total = a
        elif a is None:
            total = b if factor == 1 else b * factor
        elif operation.args[0].number in point.free and a.shape[1:] == operation.shape:
            total = a.add_(b, alpha=factor)
        else:
            total = a.add(b, alpha=factor)
        return None if total is None else total.expand(len(total), *operation.shape)


class MaxPool(_Straight):
    """Rule for max pooling, which returns the largest entries and, as a second result, their indices.

    Small changes of the inputs do not change which entries are selected, so that there is no second derivative.
    """

    owns = True

    def push(self, operation: Operation, point: Point) -> dict[int, Tensor]:
        """Tangents of the selected entries, under the key 0 for the first result."""
        along, chosen = by_examples(point.along(operation.args[0])).flatten(3), point.results[operation.number][1]
        numbers = chosen.flatten(2)[:, None].expand(-1, along.shape[1], -1, -1)
        return {0: by_examples(along.gather(3, numbers).unflatten(3, chosen.shape[2:]))}


class Local:
    """Rule for any operation, by automatic differentiation in torch.

    Torch uses forward mode, or double backward if the operation has no forward derivative. `bent` says whether the
    operation may have a second derivative; it is False for operations that merely select entries.
    """

    owns = False

    def __init__(self, bent: bool):
        self._bent = bent

    def bends(self, operation: Operation, moving: set[int]) -> bool:
        """Whether the operation may have a second derivative, as the rule's argument `bent` says."""
        return self._bent

    def push(self, operation: Operation, point: Point) -> Tangent:
        """Tangents of the result: derivatives of the operation along the tangents of its arguments.

        For several results, a dictionary from the index of a result to its tangents.
        """
        moving = _sources(operation, point.tangents)
        function, parts = _function(operation, point, moving)
        values, along = (tuple(map(each, moving)) for each in (point.value, point.tangents.__getitem__))
        try:
            found = vmap(lambda *each: jvp(function, values, each)[1])(*along)
        except NotImplementedError:
            found = _turned_twice(function, values, along)
        return dict(zip(parts, found)) if parts else found[0]

    def bend(self, operation: Operation, point: Point, one: Tangents, other: Tangents) -> Tensor | None:
        """Second derivatives ⟨δ, f″[ȧ^i, ḃ^j]⟩ (q, d, d) of the operation, with tangents i from `one`, j from `other`.

        The gradient of ⟨δ, f⟩ is differentiated along the tangents in `one`, and the result is paired with those in
        `other`. None if there are no adjoints, or if `one` or `other` has no tangents of the arguments.
        """
        moving = _sources(operation, one, other)
        function, parts = _function(operation, point, moving)
        numbers = {point.graph.operations[i].args[1]: i for i in operation.users} if parts else {}
        deltas = [point.adjoint(numbers.get(i, -1)) for i in parts] if parts else [point.adjoint(operation.number)]
        given = [each for each in deltas if each is not None]
        pushed, paired_with = (_sources(operation, each) for each in (one, other))
        if not given or not pushed or not paired_with:
            return None
        values, size = tuple(map(point.value, moving)), len(one[pushed[0]])
        held, results = zip(moving, values), function(*values)
        along = tuple(one[i] if i in pushed else each.new_zeros(size, *each.shape) for i, each in held)
        found = []
        for q in range(len(given[0])):
            filled = tuple(torch.zeros_like(y) if each is None else each[q] for y, each in zip(results, deltas))
            turned = dict(zip(moving, _bent(function, values, along, filled)))
            found.append(sum(paired(turned[i], other[i]) for i in paired_with))
        return torch.stack(found)


def _bent(function: Callable, values: tuple, along: tuple, adjoints: tuple) -> tuple[Tensor, ...]:
    """Derivatives (d, …), along d tangents, of the gradient of ⟨function, adjoints⟩ for each argument.

    `values` are the arguments at which the gradient is taken, and `along` (d, …) their tangents.
    """

    def pulled(*given: Tensor) -> tuple[Tensor, ...]:
        return vjp(function, *given)[1](adjoints)

    try:
        return vmap(lambda *each: jvp(pulled, values, each)[1])(*along)
    except NotImplementedError:
        leaves = _leaves(values)
        slopes = torch.autograd.grad(function(*leaves), leaves, adjoints, create_graph=True)
        # Second derivatives are symmetric, so these products with the tangents are the derivatives along them.
        return _pulled_each(slopes, leaves, along)


def _turned_twice(function: Callable, values: tuple, along: tuple) -> tuple[Tensor, ...]:
    """Derivatives (d, …) of each result of a function at `values` along their tangents `along` (d, …).

    They are computed by two backward passes. The first gives gradients with respect to the arguments, which are linear
    in the adjoints of the results. The second differentiates the scalar product of these gradients and the tangents
    with respect to the adjoints.
    """
    leaves = _leaves(values)
    results = function(*leaves)
    adjoints = tuple(torch.zeros_like(each, requires_grad=True) for each in results)
    return _pulled_each(torch.autograd.grad(results, leaves, adjoints, create_graph=True), adjoints, along)


def _leaves(values: tuple) -> tuple[Tensor, ...]:
    return tuple(each.detach().clone().requires_grad_() for each in values)


def _pulled_each(results: tuple, leaves: tuple, cotangents: tuple) -> tuple[Tensor, ...]:
    """Gradients (d, …) with respect to each of the `leaves` of Σ ⟨result, cotangent⟩ over all `results`.

    `cotangents` (d, …) has d cotangents for each result. The gradient is zero for a leaf that no result depends on.
    """
    pairs = [(each, those) for each, those in zip(results, cotangents) if each.requires_grad]
    if not pairs:
        return tuple(each.new_zeros(len(cotangents[0]), *each.shape) for each in leaves)
    kept, given = zip(*pairs)
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    found = [torch.autograd.grad(kept, leaves, each, **options) for each in zip(*given)]
    return tuple(torch.stack(each) for each in zip(*found))


def _sources(operation: Operation, *tangents: Tangents) -> list[int]:
    """Numbers of an operation's arguments that have tangents in at least one of the `tangents`, each number once."""
    return [i for i in dict.fromkeys(operation.sources) if any(each.get(i) is not None for each in tangents)]


def _function(operation: Operation, point: Point, moving: list[int]) -> tuple[Callable, list[int]]:
    """The operation as a function of its arguments numbered `moving`, and the indices of its floating-point results.

    The function returns these results as a tuple. If the operation has a single result, the list of indices is empty.
    """
    several = () if operation.result is not None else point.results[operation.number]
    parts = [i for i, each in enumerate(several) if _is_real(each)]

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        held = dict(zip(moving, given))
        args, options = operation.filled(lambda i: held[i] if i in held else point.value(i))
        result = operation.target(*args, **options)
        return tuple(result[i] for i in parts) if parts else (result,)

    return function, parts


def _is_real(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


class Part(_Straight):
    """Rule for an operation that selects one of the several results of another operation."""

    def push(self, operation: Operation, point: Point) -> Tangent:
        """Tangents of the selected result."""
        source, number = operation.args
        whole = point.along(source)
        return whole.get(number) if isinstance(whole, dict) else whole[number]


def _reshaped(along: Tensor, operation: Operation) -> Tensor:
    return along.reshape(len(along), *operation.shape)


def _permuted(along: Tensor, operation: Operation) -> Tensor:
    return along.permute(0, *(1 + axis % len(operation.shape) for axis in operation.args[1]))


def _transposed(along: Tensor, operation: Operation) -> Tensor:
    return along.transpose(*(1 + axis % len(operation.shape) for axis in operation.args[1:]))


# Applied to tangents (d, …) directly, as vmap would take longer than these operations themselves.
VIEWS: dict[Callable, Callable[[Tensor, Operation], Tensor]] = {
    **dict.fromkeys((aten.view.default, aten._unsafe_view.default, aten.reshape.default), _reshaped),
    aten.permute.default: _permuted,
    aten.transpose.int: _transposed,
    aten.t.default: lambda along, operation: along.mT if len(operation.shape) == 2 else along,
    aten.expand.default: lambda along, operation: aligned(along, len(operation.shape)).expand(-1, *operation.shape),
    aten._to_copy.default: lambda along, operation: along,
}
SUMS: dict[Callable, int] = {aten.add.Tensor: 1, aten.sub.Tensor: -1}
LINEAR, CHOICE = Linear(), Local(bent=False)
RULES: dict[Callable, Rule] = {
    operator.getitem: Part(),
    aten.convolution.default: Convolution(),
    aten.max_pool2d_with_indices.default: MaxPool(),
    **dict.fromkeys((aten._softmax.default, aten._safe_softmax.default), Softmax()),
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
POINTWISE, LOCAL = Pointwise(), Local(bent=True)


def rule_of(operation: Operation) -> Rule:
    """Choose the rule for an operation that depends on the parameters; LOCAL if there is no special one."""
    if operation.target in RULES:
        return RULES[operation.target]
    plain = operation.sources == [each.number for each in operation.args if isinstance(each, Reference)]
    pointwise = torch.Tag.pointwise in getattr(operation.target, "tags", ()) and operation.result is not None
    return POINTWISE if pointwise and plain else LOCAL


def without_rule(graph: Graph) -> list[str]:
    """Names of the operations in a graph for which there is no special rule, so that torch differentiates them.

    Operations that do not depend on the parameters are left out.
    """
    moving = (each for each in graph.operations if each.moves and each.number != PARAMETERS)
    return sorted({each.name for each in moving if rule_of(each) is LOCAL})


def products_of_constants(graph: Graph, rules: dict[int, Rule]) -> set[int]:
    """Numbers of the matrix products and convolutions whose tangents are equal at all points in parameter space.

    One factor is a linear function of the parameters, such as a slice of them; the other does not depend on the
    parameters. `rules` has the rule of each operation of the `graph` that depends on the parameters, by number.
    """
    linear, found = {PARAMETERS}, set()
    for i, rule in rules.items():
        operation = graph.operations[i]
        if not all(each in linear for each in operation.sources if graph.operations[each].moves):
            continue
        if isinstance(rule, Product | Convolution) and not rule.bends(operation, linear):
            found.add(i)
        elif not isinstance(rule, Linear | Sum | Part):
            continue
        linear.add(i)
    return found
