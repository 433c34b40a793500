"""Degrees of the values along a graph in the scale of the parameters.

A value v of degree k has v(α θ) = α^k v(θ) for all α > 0. Parameters have degree 1, inputs and constants 0. Products
add degrees, sums need equal ones, and functions that are not homogeneous need arguments of degree 0, as normalisations
give them. Zeros have any degree: constants, and pieces of the parameters that are zero at θ, such as biases. Such a
piece may be taken as scaled by α^w, so that derivatives along it scale as those by a parameter of degree w. Degrees are
linear in the unknown ones, which the equations of all operations determine exactly.
"""

import itertools
import operator
from collections.abc import Callable
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
ONE = -1  # the number of the unknown that is 1
Degree = dict[int, Fraction]  # factors of the unknowns


@dataclass(frozen=True)
class Degrees:
    """Degree of the `output` of a graph, and those of the `pieces` of its parameters by number."""

    output: Fraction
    pieces: dict[int, Fraction]


class _Inhomogeneous(Exception):
    """A graph with a value that has no degree."""


def of(graph: Graph, theta: Tensor) -> Degrees | None:
    """The degrees along a graph at θ (D,); None where not all can be inferred."""
    try:
        return _Inference(graph, theta).found()
    except _Inhomogeneous:
        return None


class _Inference:
    """Equations between the degrees of a graph's results."""

    def __init__(self, graph: Graph, theta: Tensor):
        self.graph, self._count = graph, 0
        self._known: dict[int, Degree] = {}  # of unknowns by others
        self._constants, self._degrees = _constants(graph), {}
        self._pieces = self._unknown_pieces(theta)

    def found(self) -> Degrees:
        """The degrees of the output and the pieces. Raises _Inhomogeneous where there are none."""
        for each in self.graph.operations:
            if each.moves:
                self._degrees[each.number] = self._of_operation(each)
        pieces = {number: self._value(degree) for number, degree in self._pieces.items()}
        return Degrees(self._value(self.of(Reference(self.graph.output))), pieces)

    def any(self) -> Degree:
        """A degree of its own, of a value that is zero."""
        self._count += 1
        return {self._count: Fraction(1)}

    def of(self, argument: object) -> Degree:
        """The degree of an argument that is a single tensor or a number."""
        if isinstance(argument, Reference):
            if argument.number in self._degrees:
                return self._degrees[argument.number]
            argument = self._constants.get(argument.number, 1)
        zero = not argument.any() if isinstance(argument, Tensor) else isinstance(argument, Number) and argument == 0
        return self.any() if zero else {}

    def equal(self, *degrees: Degree) -> Degree:
        """The one degree that all are. Raises _Inhomogeneous where they differ."""
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
        """Take the degrees of all tensors among the arguments as 0. Raises _Inhomogeneous where they are not."""
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
        """A degree, with 1 for the unknowns that nothing determines."""
        return sum(self._reduced(degree).values(), Fraction(0))


def added(first: Degree, second: Degree, factor: Number = 1) -> Degree:
    """first + factor · second."""
    found = dict(first)
    for unknown, each in second.items():
        found[unknown] = found.get(unknown, Fraction(0)) + factor * each
    return {unknown: each for unknown, each in found.items() if each}


def scaled(degree: Degree, factor: Number) -> Degree:
    """factor · degree."""
    return added({}, degree, factor)


def _constants(graph: Graph) -> dict[int, object]:
    """The results that depend neither on parameters nor on inputs."""
    varies, found = {INPUTS}, {}
    for each in graph.operations:
        if varies.intersection(each.sources):
            varies.add(each.number)
        elif not each.moves and each.number != INPUTS:
            args, options = each.filled(found.__getitem__)
            found[each.number] = each.target(*args, **options)
    return found


def _overlap(places: list[slice]) -> bool:
    """Whether different places have entries in common."""
    bounds = sorted({(each.start, each.stop) for each in places})
    return any(stop > start for (_, stop), (start, _) in itertools.pairwise(bounds))


def _same(infer: _Inference, first: object, *others: object, **options: object) -> Degree:
    """That of the first argument, a tensor or several alike; the others are no part of it."""
    infer.none(others, options)
    return infer.equal(*map(infer.of, pytree.tree_leaves(first)))


def _converted(infer: _Inference, first: object, **options: object) -> Degree:
    """Of a tensor in another type: rounded to fewer digits it is no longer homogeneous."""
    if options.get("dtype") not in (None, torch.float64):
        infer.none(first)
    return infer.of(first)


def _norm(infer: _Inference, first: object, order: Number = 2, *others: object, **options: object) -> Degree:
    """Of a norm; that of order 0 counts."""
    return infer.of(first) if order else {}


def _chosen(infer: _Inference, first: object, *others: object, **options: object) -> tuple[Degree, Degree]:
    """Entries chosen of the first argument, and their numbers."""
    return _same(infer, first, *others, **options), {}


def _alike(infer: _Inference, first: object, *others: object, **options: object) -> Degree:
    """That of all arguments."""
    return infer.equal(infer.of(first), *(infer.of(each) for each in others if each is not None))


def _sum(infer: _Inference, first: object, second: object, alpha: object = 1) -> Degree:
    """Of a ± b."""
    return infer.equal(infer.of(first), infer.of(second))


def _compared(infer: _Inference, first: object, second: object) -> Degree:
    """Of a comparison of values of the same degree."""
    infer.equal(infer.of(first), infer.of(second))
    return {}


def _fixed(infer: _Inference, *arguments: object, **options: object) -> Degree:
    """Of what positive factors do not change, or of a constant."""
    return {}


def _filled(infer: _Inference, like: object, *arguments: object, **options: object) -> Degree:
    """Of zeros."""
    return infer.any()


def _full(infer: _Inference, like: object, *arguments: object, **options: object) -> Degree:
    """Of a constant, the last argument."""
    return infer.of(arguments[-1])


def _product(factor: int = 1) -> Callable[..., Degree]:
    """Of a product, or of a quotient with factor −1."""
    return lambda infer, first, second: added(infer.of(first), infer.of(second), factor)


def _onto(factor: int = 1) -> Callable[..., Degree]:
    """Of a product or quotient added to the first argument."""

    def rule(infer: _Inference, onto: object, first: object, second: object, **options: object) -> Degree:
        return infer.equal(added(infer.of(first), infer.of(second), factor), infer.of(onto))

    return rule


def _power(exponent: Number) -> Callable[..., Degree]:
    """Of a power."""
    return lambda infer, first, *others, **options: scaled(infer.of(first), exponent)


def _any_power(infer: _Inference, first: object, exponent: object) -> Degree:
    """Of a power whose exponent is an argument."""
    if not isinstance(exponent, Number):
        raise _Inhomogeneous
    return scaled(infer.of(first), Fraction(exponent))


def _convolution(infer: _Inference, image: object, weight: object, bias: object, *options: object) -> Degree:
    """Of W ∗ a + b."""
    found = added(infer.of(image), infer.of(weight))
    return found if bias is None else infer.equal(found, infer.of(bias))


def _padded(infer: _Inference, image: object, padding: object, value: object = 0) -> Degree:
    """Of an image with constants around it."""
    return infer.equal(infer.of(image), infer.of(value))


def _where(infer: _Inference, condition: object, *both: object) -> Degree:
    """Of a choice between two."""
    infer.none(condition)
    return infer.equal(*map(infer.of, both))


def _masked(infer: _Inference, first: object, mask: object, value: object) -> Degree:
    """Of a tensor with another value in some places."""
    infer.none(mask)
    return infer.equal(infer.of(first), infer.of(value))


def _scattered(infer: _Inference, first: object, second: object, *others: object, **options: object) -> Degree:
    """Of a tensor with another one in some places."""
    infer.none(others, options)
    return infer.equal(infer.of(first), infer.of(second))


def _put(infer: _Inference, first: object, places: object, values: object, accumulate: bool = False) -> Degree:
    """Of a tensor with values at some places."""
    infer.none(places)
    return infer.equal(infer.of(first), infer.of(values))


def _bounded(infer: _Inference, first: object, low: object = None, high: object = None) -> Degree:
    """Of a tensor between bounds."""
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
