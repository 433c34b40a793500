"""Subsets of parameter space that training is confined to: planes, spheres, and the whole space.

A subset maps coordinates w (m, d) of an ensemble's m members to parameters x = offset + M w, an array (m, *shape) for
each parameter, and gradients back. On a sphere |w| is kept. Lengths of w are lengths in parameter space, on planes and
spheres alike, so that one learning rate means one step everywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from goldilocks_zone.subspaces.projections import Projection


@dataclass(frozen=True)
class Subset:
    """x = offsets + M w from `start` (m, d), with offsets (m, *shape); x = w without a projection.

    norms (m,): |w| on a sphere, else None.
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
        """Views of coordinates (m, d) in the parts of gradients: by parameter where training is free, else one."""
        return split(coordinates, self.shapes) if self.is_free else [coordinates]

    def transposed(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients by the coordinates, in `parts`, from those by the parameters."""
        if self.is_free:
            return list(gradients)
        if self.projection is None:
            return [torch.cat([each.flatten(1) for each in gradients], 1)]
        return [self.projection.transposed(gradients)]

    def tangential(self, gradients: list[Tensor], coordinates: Tensor) -> list[Tensor]:
        """Gradients, in `parts`, at coordinates (m, d), on a sphere without their radial part; in place."""
        if self.norms is None:
            return gradients
        (gradient,) = gradients
        shares = torch.linalg.vecdot(gradient, coordinates) / self.norms.square()
        return [gradient.addcmul_(shares[:, None], coordinates, value=-1)]

    def select(self, members: Tensor) -> "Subset":
        """The same for some of the members (m',)."""
        offsets = None if self.offsets is None else [each[members] for each in self.offsets]
        radii = None if self.norms is None else self.norms[members]
        return replace(self, start=self.start[members], offsets=offsets, norms=radii)

    @property
    def is_free(self) -> bool:
        """Whether coordinates are the parameters, and may go anywhere."""
        return self.projection is None and self.norms is None


def products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Scalar products (m,) of vectors that come in parts (m, …)."""
    return sum(torch.linalg.vecdot(a.flatten(1), b.flatten(1)) for a, b in zip(first, second))


def norms(parts: Sequence[Tensor]) -> Tensor:
    """Lengths (m,) of vectors that come in parts (m, …), which are read once."""
    return torch.stack([torch.linalg.vector_norm(part.flatten(1), dim=1) for part in parts]).norm(dim=0)


def by_member(values: Tensor, like: Tensor) -> Tensor:
    """Values (m,) in as many axes as `like` (m, …) has."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def split(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Flat parameters (m, D) as an array (m, *shape) for each, which shares their memory."""
    sizes = [math.prod(shape) for shape in shapes]
    return [each.view(-1, *shape) for each, shape in zip(flat.split(sizes, 1), shapes)]


def plane(projection: Projection, points: Tensor) -> Subset:
    """The planes x = P + M w through initialisations `points` (m, D), from w = 0."""
    start = points.new_zeros(len(points), projection.dimension)
    offsets = [each.contiguous() for each in split(points, projection.shapes)]
    return Subset(start, projection.shapes, projection, offsets=offsets)


def sphere(projection: Projection, radii: Tensor, start: Tensor) -> Subset:
    """The spheres x = M w, |w| = r, from a direction `start` (d,), for radii (m,) (Chang 2019)."""
    points = radii[:, None] * (start / start.norm()).to(radii)
    return Subset(points, projection.shapes, projection, norms=radii)


def sphere_through(projection: Projection, point: Tensor, radii: Tensor) -> Subset:
    """The spheres x = Q w, |w| = r (m,), from r `point` / |point|: one reading of Fort & Scherlis 2019.

    Q is an orthonormal basis of the span of `point` (D,) and M's columns. Raises ValueError if they are dependent.
    """
    basis = Spanned(projection, point.to(radii))
    start = radii.new_zeros(len(radii), basis.dimension)
    start[:, 0] = radii
    return Subset(start, projection.shapes, basis, norms=radii)


def full(points: Tensor, shapes: Sequence[tuple[int, ...]], fixed: bool) -> Subset:
    """The whole space from initialisations `points` (m, D), at their radius if `fixed`."""
    return Subset(points.clone(), list(shapes), norms=points.norm(dim=1) if fixed else None)


class Spanned(Projection):
    """An orthonormal basis of the span of a point and another projection's columns, the point's direction first."""

    def __init__(self, projection: Projection, point: Tensor):
        super().__init__(projection.dimension + 1, projection.shapes)
        self._inner, direction = projection, (point / point.norm())[None]
        self._direction = split(direction, projection.shapes)
        # The Cholesky factor L of the Gram matrix: L⁻¹ times the rows of [p, M]ᵀ are orthonormal, p itself first.
        across = projection.transposed(self._direction).double()
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
        """Q w as M applied to mixed coordinates, plus the part along the point."""
        mixed = coordinates @ self._inverse
        arrays = self._inner.forward(mixed[:, 1:], offsets)
        for array, direction in zip(arrays, self._direction):
            array.flatten(1).addmm_(mixed[:, :1], direction.flatten(1))
        return arrays

    def transposed(self, gradients: Sequence[Tensor]) -> Tensor:
        """Qᵀ g from the part along the point and Mᵀ g."""
        outward = sum((each * b).flatten(1).sum(1) for each, b in zip(gradients, self._direction))
        return torch.cat([outward[:, None], self._inner.transposed(gradients)], 1) @ self._inverse.T
