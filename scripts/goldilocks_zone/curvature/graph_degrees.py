"""Degrees of homogeneity, in the scale of the parameters, of the values in a graph of operations.

A value v of degree w satisfies v(α θ) = α^w v(θ) for all α > 0. Parameters have degree 1, inputs and constants 0.
Products add degrees, and sums need equal degrees. Functions that are not homogeneous need arguments of degree 0, such
as the outputs of normalisations.

Zeros have any degree: constants that are zero, and pieces of the parameters that are zero at θ, such as biases. Such a
piece stays zero whether it is scaled by α or by α^w. It may therefore be treated as a parameter of degree w, and
derivatives with respect to it scale accordingly. The degrees of zeros are unknowns, and all other degrees are linear
functions of them. The conditions of all operations are linear equations for the unknowns, which are solved in exact
arithmetic.

A rule, such as `_sum`, takes the inference `infer` and the arguments of one kind of torch operation. It returns the
degree of the operation's result, and raises _Inhomogeneous if degrees that must be equal cannot be.
"""

import itertools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from numbers import Number

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from goldilocks_zone.curvature import graph_rules
from goldilocks_zone.models import graphs
from goldilocks_zone.models.graphs import INPUTS, PARAMETERS, Graph, Operation, Reference

aten = torch.ops.aten
SPLIT = aten.split_with_sizes.default
COMPARISONS = aten.gt, aten.ge, aten.lt, aten.le, aten.eq, aten.ne
ONE = -1  # index of the unknown that equals 1
Degree = dict[int, Fraction]  # a linear function of the unknowns, as their coefficients


@dataclass(frozen=True)
class Degrees:
    """Degree of the `output` of a graph, and degrees of the `pieces` of its parameters.

    A piece is a slice of the parameter vector; its key is the number of the operation whose result it is.
    """

    output: Fraction
    pieces: dict[int, Fraction]


class _Inhomogeneous(Exception):
    """Raised if a value in the graph has no degree."""


def of(graph: Graph, theta: Tensor) -> Degrees | None:
    """Infer the degrees in a graph at parameters θ (D,); None if some value has no degree."""
    try:
        return _Inference(graph, theta).found()
    except _Inhomogeneous:
        return None


class _Inference:
    """Solver of the linear equations for the degrees of all results in a `graph`.

    The degrees of pieces of the parameters that are zero at `theta` (D,) are unknowns.
    """

    def __init__(self, graph: Graph, theta: Tensor):
        self.graph, self._count = graph, 0
        self._known: dict[int, Degree] = {}  # solved unknowns, in terms of others
        self._constants, self._degrees = _constants(graph), {}
        self._pieces = self._unknown_pieces(theta)

    def found(self) -> Degrees:
        """Degrees of the output and of the pieces. Raises _Inhomogeneous if some value has no degree."""
        for each in self.graph.operations:
            if each.moves:
                self._degrees[each.number] = self._of_operation(each)
        pieces = {number: self._value(degree) for number, degree in self._pieces.items()}
        return Degrees(self._value(self.of(Reference(self.graph.output))), pieces)

    def any(self) -> Degree:
        """A new unknown degree, for a value that is zero."""
        self._count += 1
        return {self._count: Fraction(1)}

    def of(self, argument: object) -> Degree:
        """Degree of an argument that is a single tensor or a number."""
        if isinstance(argument, Reference):
            if argument.number in self._degrees:
                return self._degrees[argument.number]
            argument = self._constants.get(argument.number, 1)
        zero = not argument.any() if isinstance(argument, Tensor) else isinstance(argument, Number) and argument == 0
        return self.any() if zero else {}

    def equal(self, *degrees: Degree) -> Degree:
        """Require equal degrees, which may determine unknowns, and return the first degree.

        Raises _Inhomogeneous if the degrees cannot be equal.
        """
        first, *others = degrees
        for other in others:
            rest = self._reduced(added(first, other, -1))
            unknown = next((i for i in rest if i != ONE), None)
            if unknown is not None:
                factor = rest.pop(unknown)
                self._known[unknown] = scaled(rest, -1 / factor)
            elif rest:
                raise _Inhomogeneous
        return first

    def none(self, *arguments: object) -> None:
        """Require degree 0 of all tensors among the `arguments`. Raises _Inhomogeneous if they cannot have degree 0."""
        for each in pytree.tree_leaves(arguments):
            if isinstance(each, Reference):
                self.equal(self.of(each), {})

    def _unknown_pieces(self, theta: Tensor) -> dict[int, Degree]:
        places, pieces, unknown = graphs.places_of(self.graph), {}, {}
        others = set(self.graph.operations[PARAMETERS].users) - places.keys()
        if _overlap(places.values()) or any(self.graph.operations[i].target is not SPLIT for i in others):
            return {}
        for number, place in places.items():
            key = place.start, place.stop
            if key not in unknown:
                unknown[key] = {ONE: Fraction(1)} if theta[place].any() else self.any()
            pieces[number] = unknown[key]
        return pieces

    def _of_operation(self, operation: Operation) -> Degree | tuple[Degree, ...]:
        if operation.number == PARAMETERS:
            return {ONE: Fraction(1)}
        if operation.number in self._pieces:
            return self._pieces[operation.number]
        if operation.target is operator.getitem:
            whole, part = self._degrees[operation.args[0].number], operation.args[1]
            return whole[part] if isinstance(whole, tuple) else whole
        rule = RULES.get(operation.target)
        if rule is not None:
            return rule(self, *operation.args, **operation.kwargs)
        self.none(operation.args, operation.kwargs)
        return {}

    def _reduced(self, degree: Degree) -> Degree:
        while True:
            unknown = next((i for i in degree if i in self._known), None)
            if unknown is None:
                return degree
            factor = degree[unknown]
            degree = added({i: each for i, each in degree.items() if i != unknown}, self._known[unknown], factor)

    def _value(self, degree: Degree) -> Fraction:
        """Value of a degree, with undetermined unknowns set to 1."""
        return sum(self._reduced(degree).values(), Fraction(0))


def added(first: Degree, second: Degree, factor: Fraction | int = 1) -> Degree:
    """Sum `first` + `factor` · `second` of two degrees, coefficient by coefficient."""
    found = dict(first)
    for unknown, each in second.items():
        found[unknown] = found.get(unknown, Fraction(0)) + factor * each
    return {unknown: each for unknown, each in found.items() if each}


def scaled(degree: Degree, factor: Fraction | int) -> Degree:
    """Product `factor` · `degree`, coefficient by coefficient."""
    return added({}, degree, factor)


def _constants(graph: Graph) -> dict[int, object]:
    """Results that depend neither on parameters nor on inputs, by number of the operation."""
    varies, found = {INPUTS}, {}
    for each in graph.operations:
        if varies.intersection(each.sources):
            varies.add(each.number)
        elif not each.moves and each.number != INPUTS:
            args, options = each.filled(found.__getitem__)
            found[each.number] = each.target(*args, **options)
    return found


def _overlap(places: Iterable[slice]) -> bool:
    """Whether two slices in `places` overlap without being equal."""
    bounds = sorted({(each.start, each.stop) for each in places})
    return any(stop > start for (_, stop), (start, _) in itertools.pairwise(bounds))


def _same(infer: _Inference, first: object, *others: object, **options: object) -> Degree:
    """Degree of a result that scales like the first argument, which is a tensor or several of equal degree.

    All other arguments need degree 0.
    """
    infer.none(others, options)
    return infer.equal(*map(infer.of, pytree.tree_leaves(first)))


def _converted(infer: _Inference, first: object, **options: object) -> Degree:
    """Degree of a tensor converted to another type.

    A conversion to any type but double precision rounds, so that the tensor needs degree 0.
    """
    if options.get("dtype") not in (None, torch.float64):
        infer.none(first)
    return infer.of(first)


def _norm(infer: _Inference, first: object, order: object = 2, *others: object, **options: object) -> Degree:
    """Degree of the norm of a tensor: that of the tensor, or 0 for `order` 0, which counts non-zero entries."""
    return infer.of(first) if order else {}


def _chosen(infer: _Inference, first: object, *others: object, **options: object) -> tuple[Degree, Degree]:
    """Degrees of the two results of an operation that selects entries of `first`: the entries and their indices."""
    return _same(infer, first, *others, **options), {}


def _alike(infer: _Inference, first: object, *others: object, **options: object) -> Degree:
    """Degree of a result that scales like all arguments, whose degrees must be equal."""
    return infer.equal(infer.of(first), *(infer.of(each) for each in others if each is not None))


def _sum(infer: _Inference, first: object, second: object, alpha: object = 1) -> Degree:
    """Degree of `first` ± `alpha` · `second`, whose degrees must be equal."""
    return infer.equal(infer.of(first), infer.of(second))


def _compared(infer: _Inference, first: object, second: object) -> Degree:
    """Degree 0 of the result of a comparison; the values compared need equal degrees."""
    infer.equal(infer.of(first), infer.of(second))
    return {}


def _fixed(infer: _Inference, *arguments: object, **options: object) -> Degree:
    """Degree 0, of a constant or of a result that does not change if the arguments are multiplied by α > 0."""
    return {}


def _filled(infer: _Inference, like: object, *arguments: object, **options: object) -> Degree:
    """Degree of a new tensor of zeros: a new unknown."""
    return infer.any()


def _full(infer: _Inference, like: object, *arguments: object, **options: object) -> Degree:
    """Degree of a new tensor that is filled with one value, the last of the `arguments`."""
    return infer.of(arguments[-1])


def _product(factor: int = 1) -> Callable[..., Degree]:
    """Rule for a product of two arguments, which adds their degrees, or for their quotient if `factor` is −1."""
    return lambda infer, first, second: added(infer.of(first), infer.of(second), factor)


def _onto(factor: int = 1) -> Callable[..., Degree]:
    """Rule for adding a product of two arguments (their quotient if `factor` is −1) to the first argument.

    The product and the first argument need equal degrees.
    """

    def rule(infer: _Inference, onto: object, first: object, second: object, **options: object) -> Degree:
        return infer.equal(added(infer.of(first), infer.of(second), factor), infer.of(onto))

    return rule


def _power(exponent: Fraction | int) -> Callable[..., Degree]:
    """Rule for a power with a fixed `exponent`, by which it multiplies the degree of the first argument."""
    return lambda infer, first, *others, **options: scaled(infer.of(first), exponent)


def _any_power(infer: _Inference, first: object, exponent: object) -> Degree:
    """Degree of the power `first` ** `exponent`. Raises _Inhomogeneous unless the exponent is a number."""
    if not isinstance(exponent, int | float):
        raise _Inhomogeneous
    return scaled(infer.of(first), Fraction(exponent))


def _convolution(infer: _Inference, image: object, weight: object, bias: object, *options: object) -> Degree:
    """Degree of W ∗ a + b for an `image` a, a `weight` W and a `bias` b; both terms must have equal degrees."""
    found = added(infer.of(image), infer.of(weight))
    return found if bias is None else infer.equal(found, infer.of(bias))


def _padded(infer: _Inference, image: object, padding: object, value: object = 0) -> Degree:
    """Degree of an image padded with a constant `value`, which must have the same degree."""
    return infer.equal(infer.of(image), infer.of(value))


def _where(infer: _Inference, condition: object, *both: object) -> Degree:
    """Degree of an elementwise choice between two tensors, whose degrees must be equal.

    The condition needs degree 0.
    """
    infer.none(condition)
    return infer.equal(*map(infer.of, both))


def _masked(infer: _Inference, first: object, mask: object, value: object) -> Degree:
    """Degree of a tensor with masked entries set to `value`, which must have the same degree.

    The mask needs degree 0.
    """
    infer.none(mask)
    return infer.equal(infer.of(first), infer.of(value))


def _scattered(infer: _Inference, first: object, second: object, *others: object, **options: object) -> Degree:
    """Degree of the tensor `first` with a slice replaced by the tensor `second`, which must have the same degree."""
    infer.none(others, options)
    return infer.equal(infer.of(first), infer.of(second))


def _put(infer: _Inference, first: object, places: object, values: object, accumulate: bool = False) -> Degree:
    """Degree of the tensor `first` with `values` put or added at some `places`.

    Tensor and values must have the same degree, and the places need degree 0.
    """
    infer.none(places)
    return infer.equal(infer.of(first), infer.of(values))


def _bounded(infer: _Inference, first: object, low: object = None, high: object = None) -> Degree:
    """Degree of the tensor `first` clamped between `low` and `high`, which must have the same degree."""
    return _alike(infer, first, low, high)


RULES: dict[Callable, Callable[..., Degree | tuple[Degree, ...]]] = {
    **{target: _same for target, rule in graph_rules.RULES.items() if rule is graph_rules.LINEAR},
    aten._to_copy.default: _converted,
    aten.linalg_vector_norm.default: _norm,
    **dict.fromkeys(graph_rules.SUMS, _sum),
    **dict.fromkeys(
        (
            *(aten.relu.default, aten.leaky_relu.default, aten.abs.default, aten.mul.Scalar, aten.div.Scalar),
            *(aten.max.default, aten.min.default, aten.amax.default, aten.amin.default),
            *(aten.std.correction, aten.avg_pool3d.default, aten._adaptive_avg_pool3d.default),
        ),
        _same,
    ),
    **dict.fromkeys(
        (
            *(aten.max.dim, aten.min.dim, aten.median.dim, aten.sort.default, aten.sort.stable, aten.topk.default),
            *(aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default),
            *(aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default),
        ),
        _chosen,
    ),
    **dict.fromkeys(
        (
            *(aten.maximum.default, aten.minimum.default, aten.clamp_min.default, aten.clamp_max.default),
            *(aten.clamp_min.Tensor, aten.clamp_max.Tensor, aten.threshold.default),
        ),
        _alike,
    ),
    **dict.fromkeys((each for name in COMPARISONS for each in (name.Tensor, name.Scalar)), _compared),
    **dict.fromkeys((aten.sign.default, aten.sgn.default, aten.argmax.default, aten.argmin.default), _fixed),
    **dict.fromkeys((aten.ones_like.default, aten.new_ones.default), _fixed),
    **dict.fromkeys((aten.zeros_like.default, aten.new_zeros.default), _filled),
    **dict.fromkeys((aten.full_like.default, aten.new_full.default), _full),
    **dict.fromkeys(
        (aten.mul.Tensor, aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default), _product()
    ),
    aten.div.Tensor: _product(-1),
    **dict.fromkeys((aten.addmm.default, aten.baddbmm.default, aten.addmv.default, aten.addcmul.default), _onto()),
    aten.addcdiv.default: _onto(-1),
    aten.reciprocal.default: _power(-1),
    aten.sqrt.default: _power(Fraction(1, 2)),
    aten.rsqrt.default: _power(Fraction(-1, 2)),
    aten.var.correction: _power(2),
    aten.pow.Tensor_Scalar: _any_power,
    aten.convolution.default: _convolution,
    aten.constant_pad_nd.default: _padded,
    aten.where.self: _where,
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), _masked),
    **dict.fromkeys((aten.slice_scatter.default, aten.select_scatter.default), _scattered),
    aten.index_put.default: _put,
    **dict.fromkeys((aten.clamp.default, aten.clamp.Tensor), _bounded),
    aten.hardtanh.default: lambda infer, first, low=-1, high=1: _bounded(infer, first, low, high),
}
