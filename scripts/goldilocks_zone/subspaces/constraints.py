"""Subsets of parameter space that training is restricted to: planes, spheres, and the whole space.

A subset maps coordinates w (m, d) of the m members of an ensemble to parameters x = offset + M w, an array (m, *shape)
for each parameter, and maps gradients back. On a sphere |w| is fixed. Lengths of w are lengths in parameter space, on
planes and spheres alike, so that a learning rate means the same step length in every subset.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from goldilocks_zone.subspaces.projections import Projection

LONG = 2**12  # entries of vectors whose scalar products are computed one by one


@dataclass(frozen=True)
class Subset:
    """Parameters x = offsets + M w of coordinates w; x = w without a projection.

    start: initial w (m, d); projection: M; offsets: arrays (m, *shape); norms: |w| (m,) on a sphere, else None.
    """

    start: Tensor
    shapes: list[tuple[int, ...]]
    projection: Projection | None = None
    offsets: list[Tensor] | None = None
    norms: Tensor | None = None

    def forward(self, coordinates: Tensor) -> list[Tensor]:
        """Parameters (m, *shape) at coordinates (m, d)."""
        if self.projection is None:
            return split(coordinates, self.shapes)
        return self.projection.forward(coordinates, self.offsets)

    def parts(self, coordinates: Tensor) -> list[Tensor]:
        """Views of coordinates (m, d), split like gradients: one per parameter if unconstrained, else a single one."""
        return split(coordinates, self.shapes) if self.is_free else [coordinates]

    def transposed(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients by the coordinates, split as in `parts`, from gradients by the parameters."""
        if self.is_free:
            return list(gradients)
        if self.projection is None:
            return [torch.cat([each.flatten(1) for each in gradients], 1)]
        return [self.projection.transposed(gradients)]

    def tangential(self, gradients: list[Tensor], coordinates: Tensor) -> list[Tensor]:
        """On a sphere, remove in place the radial part of gradients, split as in `parts`, at coordinates (m, d)."""
        if self.norms is None:
            return gradients
        (gradient,) = gradients
        shares = torch.linalg.vecdot(gradient, coordinates) / self.norms.square()
        return [gradient.addcmul_(shares[:, None], coordinates, value=-1)]

    def select(self, members: Tensor) -> "Subset":
        """Restrict the subset to some of the members (m',)."""
        offsets = None if self.offsets is None else [each[members] for each in self.offsets]
        radii = None if self.norms is None else self.norms[members]
        return replace(self, start=self.start[members], offsets=offsets, norms=radii)

    @property
    def is_free(self) -> bool:
        """True if coordinates are the parameters, without any constraint."""
        return self.projection is None and self.norms is None


def products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Scalar products (m,) of vectors that are split into parts (m, …)."""
    return sum(_products(a.flatten(1), b.flatten(1)) for a, b in zip(first, second))


def _products(first: Tensor, second: Tensor) -> Tensor:
    if first.is_cuda or first.shape[1] < LONG:
        return torch.linalg.vecdot(first, second)
    # On the CPU, vecdot stores all products before it adds them, which takes twice as long.
    return torch.stack([torch.dot(a, b) for a, b in zip(first, second)])


def norms(parts: Sequence[Tensor]) -> Tensor:
    """Norms (m,) of vectors that are split into parts (m, …), in one pass over memory."""
    return torch.stack([torch.linalg.vector_norm(part.flatten(1), dim=1) for part in parts]).norm(dim=0)


def by_member(values: Tensor, like: Tensor) -> Tensor:
    """Values (m,) reshaped to broadcast against `like` (m, …)."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def split(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Views of flat parameters (m, D): an array (m, *shape) for each parameter."""
    sizes = [math.prod(shape) for shape in shapes]
    return [each.view(-1, *shape) for each, shape in zip(flat.split(sizes, 1), shapes)]


def plane(projection: Projection, points: Tensor) -> Subset:
    """Planes x = P + M w through the initialisations P = `points` (m, D), starting at w = 0."""
    start = points.new_zeros(len(points), projection.dimension)
    offsets = [each.contiguous() for each in split(points, projection.shapes)]
    return Subset(start, projection.shapes, projection, offsets=offsets)


def sphere(projection: Projection, radii: Tensor, start: Tensor) -> Subset:
    """Spheres x = M w, |w| = r, for radii r (m,), starting in the direction `start` (d,) (Chang 2019)."""
    points = radii[:, None] * (start / start.norm()).to(radii)
    return Subset(points, projection.shapes, projection, norms=radii)


def sphere_through(projection: Projection, point: Tensor, radii: Tensor) -> Subset:
    """Spheres x = Q w, |w| = r (m,), starting at r `point` / |point|: one reading of Fort & Scherlis 2019.

    Q is an orthonormal basis of the span of `point` (D,) and the columns of M. Raises ValueError if these are linearly
    dependent.
    """
    basis = Spanned(projection, point.to(radii))
    start = radii.new_zeros(len(radii), basis.dimension)
    start[:, 0] = radii
    return Subset(start, projection.shapes, basis, norms=radii)


def full(points: Tensor, shapes: Sequence[tuple[int, ...]], fixed: bool) -> Subset:
    """The whole space, starting at the initialisations `points` (m, D), restricted to their radii if `fixed`."""
    return Subset(points.clone(), list(shapes), norms=points.norm(dim=1) if fixed else None)


class Spanned(Projection):
    """Orthonormal basis of the span of a point and the columns of another projection; the point comes first."""

    def __init__(self, projection: Projection, point: Tensor):
        super().__init__(projection.dimension + 1, projection.shapes)
        self.inner, direction = projection, (point / point.norm())[None]
        self.direction = split(direction, projection.shapes)
        # With the Cholesky factor L of the Gram matrix, the rows of L⁻¹ [p, M]ᵀ are orthonormal, and p is the first.
        across = projection.transposed(self.direction).double()
        gram = torch.eye(self.dimension, dtype=torch.float64, device=point.device)
        gram[0, 1:] = gram[1:, 0] = across[0]
        identity = torch.eye(projection.dimension, dtype=point.dtype, device=point.device)
        for start in range(0, projection.dimension, 100):
            rows = projection.transposed(projection.forward(identity[start : start + 100]))
            gram[1 + start : 1 + start + len(rows), 1:] = rows
        factor, failed = torch.linalg.cholesky_ex((gram + gram.T) / 2)
        if failed:
            raise ValueError("the initialisation lies in the plane's span: draw another plane or a smaller one")
        self._inverse = torch.linalg.solve_triangular(factor, torch.eye(len(gram)).to(gram), upper=False).to(point)

    def forward(self, coordinates: Tensor, offsets: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Q w: M applied to mixed coordinates, plus the part along the point."""
        mixed = coordinates @ self._inverse
        arrays = self.inner.forward(mixed[:, 1:], offsets)
        for array, direction in zip(arrays, self.direction):
            array.flatten(1).addmm_(mixed[:, :1], direction.flatten(1))
        return arrays

    def transposed(self, gradients: Sequence[Tensor]) -> Tensor:
        """Qᵀ g from the part along the point and Mᵀ g."""
        outward = sum((each * b).flatten(1).sum(1) for each, b in zip(gradients, self.direction))
        return torch.cat([outward[:, None], self.inner.transposed(gradients)], 1) @ self._inverse.T

    def seen_as(self, inner: Projection, direction: Sequence[Tensor]) -> "Spanned":
        """This projection, followed by a linear map of the parameters, such as to the outputs of a layer.

        Coordinates stay the same. `inner` is this object's `inner` followed by the map, and `direction` (arrays
        (*shape)) is the image of the unit vector along the point.
        """
        result = copy.copy(self)
        result.inner, result.direction = inner, [each[None] for each in direction]
        result.shapes, result.places = inner.shapes, inner.places
        return result
