"""State of a graph at one point, as used by the rules of operations: values, adjoints, and tangents along d directions.

Tangents of a result of shape (*shape) are (d, *shape). In memory, tangents of images store the examples before the
directions.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.models.graphs import Graph, Operation, Reference, Weights
from goldilocks_zone.models.layers import Dense

aten = torch.ops.aten
# A tensor (d, …) or None; for an operation with several results, a sequence or dictionary of these.
Tangent = Any
Tangents = dict[int, Tangent]  # by number of the operation
Made = TypeVar("Made")
Filled = tuple[Tensor, Tensor, Tensor]  # directions, row indices and entries of rows, from `Directions.filled`


class Point:
    """A graph at one point θ: results of its operations, with some of their tangents (d, …) and adjoints (q, …).

    `results` has all results. `tangents` has those of a result only while later operations need them. `adjoints` has
    those of some results; they follow from q adjoints of the output of the graph. `results` and `adjoints` are in the
    precision of the point, `tangents` in the precision of the directions; the methods `value` and `adjoint` convert to
    the precision of the directions. `free` holds the numbers of the results whose tangents the current operation may
    overwrite. `weights` describes the results that are weight matrices, by number of the operation.
    """

    def __init__(self, graph: Graph, results: list, directions: Directions, weights: dict[int, Weights]):
        self.graph, self.results, self.dtype = graph, results, directions.dtype
        self._directions, self._weights = directions, weights
        self.adjoints: dict[int, Tensor] = {}
        self.tangents: Tangents = {}
        self.free: set[int] = set()
        self._values: dict[int, Any] = {}
        self._derivatives: dict[int, Any] = {}

    def moves(self, number: int) -> bool:
        """Whether the result of operation `number` can be differentiated with respect to the parameters.

        For an operation with a tuple of results, this is only whether it depends on the parameters; the entries of the
        tuple are checked separately.
        """
        result = self.results[number]
        return self.graph.operations[number].moves and (not isinstance(result, Tensor) or result.requires_grad)

    def value(self, number: int) -> Any:
        """Result of operation `number`, detached, with floats in the precision of the tangents."""
        if number not in self._values:
            self._values[number] = pytree.tree_map(self.cast, self.results[number])
        return self._values[number]

    def cast(self, value: Any) -> Any:
        """Detach a tensor, and convert floats to the precision of the tangents; return other objects unchanged."""
        if not isinstance(value, Tensor):
            return value
        value = value.detach()
        return value.to(self.dtype) if value.is_floating_point() else value

    def once(self, number: int, make: Callable[[], Made]) -> Made:
        """Result of `make`, cached until this method is called for another operation `number`."""
        if number not in self._derivatives:
            self._derivatives = {number: make()}
        return self._derivatives[number]

    def adjoint(self, number: int) -> Tensor | None:
        """Adjoints δ (q, …) of the result of operation `number`, in the precision of the tangents; None if not stored.

        Adjoints are stored only for results whose rules need them.
        """
        return None if number not in self.adjoints else self.cast(self.adjoints[number])

    def sparse(self, number: int, axis: int) -> Filled | None:
        """Rows with non-zero entries: of Ẇᵀ (o, i) if `axis` is 0, of Ẇ (i, o) if `axis` is 1.

        W (i, o) is the result of operation `number`, and Ẇ its tangents along all directions. The rows of all
        directions are returned in the form of `Directions.filled`. None if W is no weight matrix, or if the Ẇ are not
        stored in sparse form.
        """
        weights = self._weights.get(number)
        if weights is None or not self._directions.is_sparse(layer := layer_of(weights)):
            return None
        return self._directions.filled(layer, axis if weights.turned else 1 - axis)

    def along(self, argument: object) -> Tangent:
        """Tangents of an operation's `argument`, from `tangents`; None if it is a constant or has no tangents."""
        return self.tangents.get(argument.number) if isinstance(argument, Reference) else None


def layer_of(weights: Weights) -> Dense:
    """Dense layer without a bias, whose weights are the slice of the parameter vector that `weights` describes."""
    return Dense(weights.place, None, tuple(weights.shape))


class Rule(Protocol):
    """Methods that compute the derivatives of one kind of operation f.

    `operation` is an operation of this kind, and `point` the state of the graph at which it is differentiated. owns:
    True if the tangents that `push` returns share no memory with tangents that are still needed, so that they may be
    overwritten.
    """

    owns: bool

    def bends(self, operation: Operation, moving: set[int]) -> bool:
        """Whether the operation has a second derivative; `moving` holds the numbers of all results with tangents."""
        ...

    def push(self, operation: Operation, point: Point) -> Tangent:
        """Tangents of the result of the operation, from those of its arguments in `point.tangents`."""

    def bend(self, operation: Operation, point: Point, one: Tangents, other: Tangents) -> Tensor | None:
        """Second derivative ⟨δ, f″[ȧ^i, ḃ^j]⟩ (q, d, d) for q adjoints δ; None if there is no contribution.

        The tangents ȧ^i of its arguments come from `one`, the tangents ḃ^j from `other`.
        """


def paired(first: Tensor, second: Tensor) -> Tensor:
    """Scalar products ⟨first^i, second^j⟩ (d, d) of tangents (d, …) with the same memory layout."""
    return first.reshape(len(first), -1) @ second.reshape(len(second), -1).T


def paired_with_each(stacked: Tensor, second: Tensor) -> Tensor:
    """Scalar products ⟨stacked^{iq}, second^j⟩ (q, d, d) of `stacked` (d, q, …) with tangents `second` (d, …).

    `stacked` has one tensor for each pair of a direction i and an adjoint q. Each has the memory layout of a tangent.
    """
    d, q = stacked.shape[:2]
    return (stacked.reshape(d * q, -1) @ second.reshape(len(second), -1).T).view(d, q, -1).transpose(0, 1)


def by_examples(tangent: Tensor) -> Tensor:
    """View of tangents (d, n, …) as (n, d, …), the order of images in memory; or the reverse."""
    return tangent.transpose(0, 1)


def aligned(tangent: Tensor, ndim: int) -> Tensor:
    """Tangent (d, *shape) with axes of length one inserted after d, so that `shape` broadcasts to `ndim` axes."""
    missing = ndim + 1 - tangent.ndim
    return tangent if not missing else tangent.reshape(len(tangent), *(1,) * missing, *tangent.shape[1:])


def summed_to(values: Tensor, shape: torch.Size) -> Tensor:
    """Sum `values` (d, …) over the axes along which a tensor of `shape` was broadcast, to give (d, *shape)."""
    missing = values.ndim - 1 - len(shape)
    stretched = [i for i, size in enumerate(shape, 1 + missing) if size == 1 and values.shape[i] > 1]
    axes = [*range(1, 1 + missing), *stretched]
    return (values.sum(axes, keepdim=True) if axes else values).reshape(len(values), *shape)
