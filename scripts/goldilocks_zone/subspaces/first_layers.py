"""Projections to the outputs of a network's first dense layer instead of its weights, on one sparse plane or sphere.

For inputs X (n, i), the outputs W Xᵀ (o, n) are linear in the weights W (o, i). One sparse product maps the directions
of the plane to outputs, for all members. Two matrix products with d rows then give the members' outputs, and the
gradients with respect to their coordinates. Weights (m, o, i) and gradients with respect to weights are not formed,
which saves most of the work if the first layer has most of the parameters. Letters: m members, d coordinates, n
examples, i inputs and o outputs of the layer.
"""

import functools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from goldilocks_zone.subspaces.constraints import Spanned, Subset
from goldilocks_zone.subspaces.projections import Dense, Projection, Sparse

# At this ratio of d·n·o (entries of outputs along directions) to m·i·o (entries of weights), both paths take as long.
WORTH = 4


class FirstLayer:
    """The first dense layer of a network, for members whose parameters lie in a `subset` of parameter space.

    The first parameter tensors of the network are the layer's weight and, if it has one, its bias.
    """

    def __init__(self, subset: Subset, inner: Sparse, points: list[Tensor] | None, scales: Tensor | None):
        """Prepare the layer in a `subset` whose projection is `inner`, or is a `Spanned` one that contains `inner`.

        `points` are an array (*shape) for each parameter tensor. On planes, the offsets of the members are `points`
        times `scales` (m,). With a `Spanned` projection, `points` are the unit vector along its point, and `scales` is
        None. On other spheres both are None.
        """
        self._subset, self._points, self._scales = subset, points, scales
        self._outputs, self._inputs = subset.shapes[0]
        self._count = 2 if len(subset.shapes) > 1 and len(subset.shapes[1]) == 1 else 1
        self._later = inner.part(slice(self._count, None))
        self._directions = _directions(inner.part(slice(0, self._count)), self._inputs + self._count - 1)

    def behind(self, inputs: Tensor) -> Subset | None:
        """Return the subset in which the outputs of the layer for `inputs` (n, …) replace its weight and bias.

        The coordinates are the same. The first parameter tensor is the layer's output (m, o, n), and the parameters of
        later layers follow. Returns None if forming the weights is cheaper.
        """
        members, dimension, n = len(self._subset.start), self._later.dimension, len(inputs)
        if dimension * n > WORTH * members * self._inputs:
            return None
        columns = inputs.flatten(1).T
        if self._count == 2:
            columns = torch.cat([columns, columns.new_ones(1, n)])
        # SciPy's product takes half the time of torch's.
        rows = torch.from_numpy(self._directions @ columns.contiguous().numpy()).view(dimension, -1)
        shapes = [(self._outputs, n), *self._later.shapes]
        projection: Projection = Stacked([Dense(rows, shapes[:1]), self._later])
        point = [] if self._points is None else self._behind(self._points, columns)
        if isinstance(self._subset.projection, Spanned):
            projection = self._subset.projection.seen_as(projection, point)
        offsets = self._subset.offsets
        if offsets is not None:
            assert self._scales is not None  # as `of` gives them for members that have offsets
            offsets = [self._scales[:, None, None] * point[0], *offsets[self._count :]]
        return replace(self._subset, shapes=shapes, projection=projection, offsets=offsets)

    def _behind(self, point: list[Tensor], columns: Tensor) -> list[Tensor]:
        own = [each.flatten(1) if each.ndim > 1 else each[:, None] for each in point[: self._count]]
        return [torch.cat(own, 1) @ columns, *point[self._count :]]


class Stacked(Projection):
    """One projection made of several with the same coordinates; its list of parameter tensors joins their lists."""

    def __init__(self, parts: list[Projection]):
        super().__init__(parts[0].dimension, [shape for part in parts for shape in part.shapes])
        self._parts = parts

    def forward(self, coordinates: Tensor, offsets: Sequence[Tensor] | None = None) -> list[Tensor]:
        """M w for coordinates w (m, d), plus `offsets` if given: arrays (m, *shape) for the tensors of all parts."""
        if offsets is None:
            return [each for part in self._parts for each in part.forward(coordinates)]
        return [each for part, own in self._with_their(offsets) for each in part.forward(coordinates, own)]

    def transposed(self, gradients: Sequence[Tensor]) -> Tensor:
        """Mᵀ g, of shape (m, d), for gradients g: a sum over the parts.

        `gradients` are arrays (m, *shape) for the tensors of all parts.
        """
        return functools.reduce(operator.add, (part.transposed(own) for part, own in self._with_their(gradients)))

    def _with_their(self, arrays: Sequence[Tensor]) -> Iterator[tuple[Projection, Sequence[Tensor]]]:
        start = 0
        for part in self._parts:
            yield part, arrays[start : start + len(part.shapes)]
            start += len(part.shapes)


def of(network: nn.Module, subset: Subset) -> FirstLayer | None:
    """First layer of a `network` for members in a `subset`; None where the method of this module does not apply.

    It applies to an nn.Sequential that begins with Flatten and Linear and goes on after them. It does not apply to
    subsets without a sparse projection, or to planes through points that are not multiples of one another. It is not
    used on a GPU, where it was not measured.
    """
    projection, points, scales = subset.projection, None, None
    inner = projection.inner if isinstance(projection, Spanned) else projection
    if not (type(network) is nn.Sequential and isinstance(inner, Sparse)) or subset.start.is_cuda:
        return None
    if [type(each) for each in network[:2]] != [nn.Flatten, nn.Linear] or len(network) < 3:
        return None
    if isinstance(projection, Spanned):
        points = [each[0] for each in projection.direction]
    elif subset.offsets is not None:
        scales = _scales(torch.cat([each.flatten(1) for each in subset.offsets], 1))
        if scales is None:
            return None
        points = [each[scales.argmax()] for each in subset.offsets]
    return FirstLayer(subset, inner, points, scales)


def _scales(points: Tensor) -> Tensor | None:
    """Lengths (m,) of the vectors `points` (m, D), divided by the greatest length.

    Returns None unless all vectors have the same direction up to rounding.
    """
    exact = points.double()
    lengths = torch.linalg.vector_norm(exact, dim=1)
    scales = lengths / lengths.max()
    apart = torch.linalg.vector_norm(exact - scales[:, None] * exact[lengths.argmax()], dim=1)
    return scales.to(points) if (apart <= 4 * torch.finfo(points.dtype).eps * lengths).all() else None


def _directions(layer: Sparse, width: int) -> scipy.sparse.csr_array:
    """Sparse matrix (d · o, `width`) that stacks the directions of the first layer, each a matrix (o, `width`).

    `layer` is the projection into the layer's weight (o, i) and bias. Without a bias, `width` is i. With a bias, it is
    i + 1, and the last column belongs to the bias.
    """
    (outputs, inputs), entries = layer.shapes[0], layer.unit.tocoo()
    direction, place = entries.coords
    of_weight = place < outputs * inputs
    output = np.where(of_weight, place // inputs, place - outputs * inputs)
    column = np.where(of_weight, place % inputs, inputs)
    shape = (layer.dimension * outputs, width)
    data = entries.data.astype(layer.rows.values().numpy().dtype)
    return scipy.sparse.csr_array((data, (direction * outputs + output, column)), shape=shape)
