"""Where training may go: planes, spheres, and the whole space, for the members (radii) of one seed.

A subset maps coordinates w (r, d) of r members to parameters x = offset + scale · M w, an array (r, *shape) for each
parameter, and gradients back. On a sphere |w| is kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from goldilocks.projections import Projection


@dataclass(frozen=True)
class Subset:
    """x = offsets + scales · M w from `start` (r, d); M is the identity without a projection.

    offsets: an array (r, *shape) for each parameter, or None; scales (r,); norms (r,): |w| on a sphere, else None.
    """

    start: Tensor
    shapes: list[tuple[int, ...]]
    projection: Projection | None = None
    offsets: list[Tensor] | None = None
    scales: Tensor | None = None
    norms: Tensor | None = None

    def forward(self, coordinates: Tensor) -> list[Tensor]:
        """Parameters (r, *shape) at coordinates (r, d)."""
        if self.scales is not None:
            coordinates = self.scales[:, None] * coordinates
        arrays = self.projection.forward(coordinates) if self.projection else split(coordinates, self.shapes)
        return arrays if self.offsets is None else [a.add_(b) for a, b in zip(arrays, self.offsets)]

    def transposed(self, gradients: Sequence[Tensor]) -> Tensor:
        """Gradients by the coordinates (r, d) from those by the parameters."""
        if self.projection is None:
            found = torch.cat([each.flatten(1) for each in gradients], 1)
        else:
            found = self.projection.transposed(gradients)
        return found if self.scales is None else self.scales[:, None] * found


def split(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Flat parameters (r, D) as an array (r, *shape) for each, a copy."""
    sizes = [math.prod(shape) for shape in shapes]
    return [each.reshape(-1, *shape).clone() for each, shape in zip(flat.split(sizes, 1), shapes)]


def plane(projection: Projection, points: Tensor) -> Subset:
    """The planes x = P + M w through initialisations `points` (r, D), from w = 0."""
    start = points.new_zeros(len(points), projection.dimension)
    return Subset(start, projection.shapes, projection, offsets=split(points, projection.shapes))


def sphere(projection: Projection, radii: Tensor, start: Tensor) -> Subset:
    """The spheres x = r M w, |w| = 1, from a direction `start` (d,) (Chang 2019)."""
    start = (start / start.norm()).to(radii).expand(len(radii), -1).contiguous()
    return Subset(start, projection.shapes, projection, scales=radii, norms=torch.ones_like(radii))


def sphere_through(projection: Projection, point: Tensor, radii: Tensor) -> Subset:
    """The spheres x = r Q w, |w| = 1, Q an orthonormal basis of the span of `point` (D,) and M's columns.

    They start at r `point` / |point| (Fort & Scherlis 2019, with the reading that papers leave open).
    Raises ValueError if the point lies in the span of the columns.
    """
    basis = Spanned(projection, point.to(radii))
    start = radii.new_zeros(len(radii), basis.dimension)
    start[:, 0] = 1
    return Subset(start, projection.shapes, basis, scales=radii, norms=torch.ones_like(radii))


def full(points: Tensor, shapes: Sequence[tuple[int, ...]], fixed: bool) -> Subset:
    """The whole space from initialisations `points` (r, D), at their radius if `fixed`."""
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

    def forward(self, coordinates: Tensor) -> list[Tensor]:
        """As Projection.forward."""
        mixed = coordinates @ self._inverse
        arrays = self._inner.forward(mixed[:, 1:])
        return [a.add_(mixed[:, :1].unflatten(1, (1,) * (a.ndim - 1)) * b) for a, b in zip(arrays, self._direction)]

    def transposed(self, gradients: Sequence[Tensor]) -> Tensor:
        """As Projection.transposed."""
        outward = sum((each * b).flatten(1).sum(1) for each, b in zip(gradients, self._direction))
        return torch.cat([outward[:, None], self._inner.transposed(gradients)], 1) @ self._inverse.T
