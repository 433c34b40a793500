"""Subsets of parameter space that training is restricted to: planes, spheres, and the whole space.

A subset maps coordinates w (m, d) of the m members of an ensemble to their parameters x = offset + M w, and maps
gradients back. Parameters and gradients are lists with an array (m, *shape) for each parameter tensor. On a sphere |w|
is fixed. On planes and spheres, |w| is a length in parameter space: columns of M have unit length and are orthogonal,
at least nearly. A learning rate therefore means the same step length in every subset.
"""

import copy
import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from goldilocks_zone.subspaces.projections import Projection

LONG = 2**12  # vectors of at least this many entries are multiplied one member after another


@dataclass(frozen=True)
class Subset:
    """A subset of parameter space: parameters x = offsets + M w at coordinates w, or x = w without a `projection`.

    start: initial w (m, d). shapes: shape of each parameter tensor. projection: M. offsets: an array (m, *shape) for
    each parameter tensor; None if there are no offsets. norms: |w| (m,) on a sphere; None if |w| is not fixed.
    """

    start: Tensor
    shapes: list[tuple[int, ...]]
    projection: Projection | None = None
    offsets: list[Tensor] | None = None
    norms: Tensor | None = None

    def forward(self, coordinates: Tensor) -> list[Tensor]:
        """Parameters at `coordinates` (m, d): an array (m, *shape) for each parameter tensor."""
        if self.projection is None:
            return split(coordinates, self.shapes)
        return self.projection.forward(coordinates, self.offsets)

    def parts(self, coordinates: Tensor) -> list[Tensor]:
        """List of the parts of `coordinates` (m, d); gradients and steps are split in the same way.

        If parameters are unconstrained, the parts are views (m, *shape), one for each parameter tensor. In any other
        subset, `coordinates` are the only part.
        """
        return split(coordinates, self.shapes) if self.is_free else [coordinates]

    def transposed(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients with respect to the coordinates, split as in `parts`.

        `gradients` are those with respect to the parameters, an array (m, *shape) for each parameter tensor.
        """
        if self.is_free:
            return list(gradients)
        if self.projection is None:
            return [torch.cat([each.flatten(1) for each in gradients], 1)]
        return [self.projection.transposed(gradients)]

    def tangential(self, gradients: list[Tensor], coordinates: Tensor) -> list[Tensor]:
        """Remove the radial component of `gradients` on a sphere, in place; in other subsets, return them unchanged.

        `gradients` with respect to the coordinates are split as in `parts`, and belong to the point
        `coordinates` (m, d).
        """
        if self.norms is None:
            return gradients
        (gradient,) = gradients
        shares = torch.linalg.vecdot(gradient, coordinates) / self.norms.square()
        return [gradient.addcmul_(shares[:, None], coordinates, value=-1)]

    def select(self, members: Tensor) -> "Subset":
        """The same subset for some members only, given by their indices `members` (m',)."""
        offsets = None if self.offsets is None else [each[members] for each in self.offsets]
        radii = None if self.norms is None else self.norms[members]
        return replace(self, start=self.start[members], offsets=offsets, norms=radii)

    @property
    def is_free(self) -> bool:
        """True if the subset is the whole space without any constraint, in which coordinates are the parameters."""
        return self.projection is None and self.norms is None


def products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Scalar products (m,) of two vectors for each of m members; a vector is a list of parts (m, …)."""
    return functools.reduce(operator.add, (_products(a.flatten(1), b.flatten(1)) for a, b in zip(first, second)))


def _products(first: Tensor, second: Tensor) -> Tensor:
    if first.is_cuda or first.shape[1] < LONG:
        return torch.linalg.vecdot(first, second)
    # On the CPU, vecdot stores all products before it adds them, which takes twice as long.
    return torch.stack([torch.dot(a, b) for a, b in zip(first, second)])


def norms(parts: Sequence[Tensor]) -> Tensor:
    """Norms (m,) of the vectors of m members, in one pass over memory; a vector is a list of `parts` (m, …)."""
    return torch.stack([torch.linalg.vector_norm(part.flatten(1), dim=1) for part in parts]).norm(dim=0)


def by_member(values: Tensor, like: Tensor) -> Tensor:
    """Reshape `values` (m,) to (m, 1, …), with as many axes as `like` (m, …), for broadcasting."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def split(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Split flat parameters (m, D) into views (m, *shape), one for each parameter tensor, with the given `shapes`."""
    sizes = [math.prod(shape) for shape in shapes]
    return [each.view(-1, *shape) for each, shape in zip(flat.split(sizes, 1), shapes)]


def plane(projection: Projection, points: Tensor) -> Subset:
    """Planes x = P + M w through the `points` P (m, D), one plane for each member, with M = `projection`.

    Training starts at the points, where w = 0.
    """
    start = points.new_zeros(len(points), projection.dimension)
    offsets = [each.contiguous() for each in split(points, projection.shapes)]
    return Subset(start, projection.shapes, projection, offsets=offsets)


def sphere(projection: Projection, radii: Tensor, start: Tensor) -> Subset:
    """Spheres x = M w, |w| = r, one for each of the `radii` r (m,), with M = `projection` (Chang 2019).

    Training starts at the point w of each sphere that lies in the direction of `start` (d,).
    """
    points = radii[:, None] * (start / start.norm()).to(radii)
    return Subset(points, projection.shapes, projection, norms=radii)


def sphere_through(projection: Projection, point: Tensor, radii: Tensor) -> Subset:
    """Spheres x = Q w, |w| = r, one for each of the `radii` r (m,), on which training starts at r `point` / |point|.

    Q is an orthonormal basis of the span of `point` (D,) and the columns of M = `projection`. This is one reading of
    Fort & Scherlis (2019). Raises ValueError if `point` and the columns are linearly dependent.
    """
    basis = Spanned(projection, point.to(radii))
    start = radii.new_zeros(len(radii), basis.dimension)
    start[:, 0] = radii
    return Subset(start, projection.shapes, basis, norms=radii)


def full(points: Tensor, shapes: Sequence[tuple[int, ...]], fixed: bool) -> Subset:
    """The whole space, in which training starts at the `points` (m, D).

    If `fixed`, each member stays on the sphere whose radius is the norm of its point.
    """
    return Subset(points.clone(), list(shapes), norms=points.norm(dim=1) if fixed else None)


class Spanned(Projection):
    """Projection Q (D, d + 1), an orthonormal basis of the span of a point (D,) and the columns of a projection M.

    The first column is the unit vector along the point.
    """

    def __init__(self, projection: Projection, point: Tensor):
        super().__init__(projection.dimension + 1, projection.shapes)
        self.inner, direction = projection, (point / point.norm())[None]
        self.direction = split(direction, projection.shapes)
        # With the Cholesky factor L of [p, M]ᵀ [p, M], the rows of L⁻¹ [p, M]ᵀ are orthonormal; p is the first.
        across = projection.transposed(self.direction).double()
        gram = torch.eye(self.dimension, dtype=torch.float64, device=point.device)
        gram[0, 1:] = gram[1:, 0] = across[0]
        identity = torch.eye(projection.dimension, dtype=point.dtype, device=point.device)
        for start in range(0, projection.dimension, 100):
            rows = projection.transposed(projection.forward(identity[start : start + 100]))
            gram[1 + start : 1 + start + len(rows), 1:] = rows
        factor, failed = torch.linalg.cholesky_ex((gram + gram.T) / 2)
        if failed:
            raise ValueError(
                "the initialisation lies in the span of the plane's directions, so it adds no dimension to them: draw "
                "another plane, or one of fewer dimensions"
            )
        self._inverse = torch.linalg.solve_triangular(factor, torch.eye(len(gram)).to(gram), upper=False).to(point)

    def forward(self, coordinates: Tensor, offsets: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Q w for coordinates w (m, d + 1), plus `offsets` if given: an array (m, *shape) for each parameter tensor.

        Q is not formed. Q w is computed as M v plus a multiple of the unit vector along the point; v and the factor are
        linear in w.
        """
        mixed = coordinates @ self._inverse
        arrays = self.inner.forward(mixed[:, 1:], offsets)
        for array, direction in zip(arrays, self.direction):
            array.flatten(1).addmm_(mixed[:, :1], direction.flatten(1))
        return arrays

    def transposed(self, gradients: Sequence[Tensor]) -> Tensor:
        """Qᵀ g, of shape (m, d + 1), for gradients g: an array (m, *shape) for each parameter tensor.

        It is computed from the component of g along the point and from Mᵀ g.
        """
        parts = ((each * b).flatten(1).sum(1) for each, b in zip(gradients, self.direction))
        outward = functools.reduce(operator.add, parts)
        return torch.cat([outward[:, None], self.inner.transposed(gradients)], 1) @ self._inverse.T

    def seen_as(self, inner: Projection, direction: Sequence[Tensor]) -> "Spanned":
        """Projection A Q to the image of the parameters under a linear map A, for example to the outputs of a layer.

        `inner` is A M, a projection with the same coordinates as M. `direction` is A p for the unit vector p along the
        point, a list of arrays (*shape). The result has the same coordinates as this projection.
        """
        result = copy.copy(self)
        result.inner, result.direction = inner, [each[None] for each in direction]
        result.shapes, result.places = inner.shapes, inner.places
        return result
