"""Projections from a low-dimensional random subspace into the parameters of a network: dense, sparse, Fastfood.

A projection M (D, d) maps coordinates w (m, d) of the m members of an ensemble to an array (m, *shape) for each
parameter tensor. Its transpose maps gradients in these arrays back to coordinates. Columns of M have unit length and
are nearly orthogonal (Li et al. 2018).
"""

import functools
import math
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
from torch import Tensor

from goldilocks_zone.subspaces import planes
from goldilocks_zone.subspaces.labels import PROJECTION_KINDS, Plane, Sphere

Shapes = Sequence[tuple[int, ...]]
ROWS_AT_ONCE = 10  # rows of a dense projection that are drawn at once, in double precision
ENTRIES_AT_ONCE = 2**18  # on the CPU, products of few rows with many columns are twice as fast in blocks of this size


class Projection(ABC):
    """A projection M (D, d) with columns of unit length; `shapes` are the shapes of the network's parameter tensors."""

    def __init__(self, dimension: int, shapes: Shapes):
        self.dimension, self.shapes = dimension, [tuple(shape) for shape in shapes]
        stops = np.cumsum([math.prod(shape) for shape in self.shapes]).tolist()
        self.places = [slice(start, stop) for start, stop in zip([0, *stops], stops)]

    @abstractmethod
    def forward(self, coordinates: Tensor, offsets: Sequence[Tensor] | None = None) -> list[Tensor]:
        """M w for coordinates w (m, d), plus `offsets` if given: an array (m, *shape) for each parameter tensor."""

    @abstractmethod
    def transposed(self, gradients: Sequence[Tensor]) -> Tensor:
        """Mᵀ g, of shape (m, d), for gradients g: an array (m, *shape) for each parameter tensor."""


def make(
    where: Plane | Sphere, shapes: Shapes, eta: np.ndarray, random: np.random.Generator, like: Tensor | None = None
) -> Projection:
    """Draw a random projection with the number of directions and the kind of `where`, a plane or sphere.

    `eta` is the metric η (D,). Columns are multiplied by η, then scaled to unit length. Precision and device are those
    of `like`, by default single precision and the CPU. Raises ValueError if the kind is unknown, or if the number of
    directions is not between 1 and the number of non-zero entries of η.
    """
    kind, dimension, like = where.kind, where.dimension, torch.empty(0) if like is None else like
    if kind not in PROJECTION_KINDS:
        raise ValueError(f"projection {kind!r} is unknown: use one of {', '.join(PROJECTION_KINDS)}")
    if not 1 <= dimension <= np.count_nonzero(eta):
        used = np.count_nonzero(eta)
        raise ValueError(
            f"a subspace cannot have {dimension} dimensions with {used} parameters in use: ask for 1 to {used}"
        )
    if kind == "fastfood":
        return Fastfood(dimension, shapes, eta, random, like)
    if kind == "dense":
        rows = like.new_empty(dimension, eta.size)
        for start in range(0, dimension, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, dimension - start)
            drawn = planes.directions(Plane(count, kind), eta, random)
            drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
            rows[start : start + count] = torch.as_tensor(drawn)
        return Dense(rows, shapes)
    rows = planes.sparse_directions(dimension, eta, random)
    norms = np.sqrt(rows.multiply(rows).sum(1))
    return Sparse(scipy.sparse.csr_array(rows.multiply(1 / norms[:, None])), shapes, like)


class Dense(Projection):
    """Projection M stored as a dense matrix; `rows` (d, D) is Mᵀ."""

    def __init__(self, rows: Tensor, shapes: Shapes):
        super().__init__(len(rows), shapes)
        self.rows = rows

    def forward(self, coordinates: Tensor, offsets: Sequence[Tensor] | None = None) -> list[Tensor]:
        """M w for coordinates w (m, d), plus `offsets` if given, by one matrix product for each block of parameters."""
        found = []
        for number, (place, shape) in enumerate(zip(self.places, self.shapes)):
            rows = self.rows[:, place]
            array = coordinates.new_empty(len(coordinates), rows.shape[1])
            step = rows.shape[1] if rows.is_cuda else -(-ENTRIES_AT_ONCE // self.dimension)
            for start in range(0, rows.shape[1], step):
                part = slice(start, start + step)
                if offsets is None:
                    torch.mm(coordinates, rows[:, part], out=array[:, part])
                else:
                    torch.addmm(offsets[number].flatten(1)[:, part], coordinates, rows[:, part], out=array[:, part])
            found.append(array.view(-1, *shape))
        return found

    def transposed(self, gradients: Sequence[Tensor]) -> Tensor:
        """Mᵀ g, of shape (m, d), as a sum over the parameter tensors, which have the gradients g (m, *shape)."""
        parts = (each.flatten(1) @ self.rows[:, place].T for each, place in zip(gradients, self.places))
        return functools.reduce(operator.add, parts)


class Sparse(Projection):
    """Projection M stored by its few non-zero entries.

    `unit` is Mᵀ (d, D) as a CSR matrix of scipy, and `rows` is the same as a CSR matrix of torch.
    """

    def __init__(self, unit: scipy.sparse.csr_array, shapes: Shapes, like: Tensor):
        super().__init__(unit.shape[0], shapes)  # pyright: ignore[reportOptionalSubscript]
        self.unit, self.rows = unit, sparse_tensor(unit, like)
        columns, self._parts = unit.T.tocsr(), []
        for place in self.places:
            # Compute only parameters where some column is non-zero; the others keep their offsets.
            reached = np.flatnonzero(np.diff(columns[place].indptr))
            places = torch.as_tensor(reached, device=like.device)
            self._parts.append((places, sparse_tensor(columns[place][reached], like)))

    def forward(self, coordinates: Tensor, offsets: Sequence[Tensor] | None = None) -> list[Tensor]:
        """M w for coordinates w (m, d), plus `offsets` if given: an array (m, *shape) for each parameter tensor.

        Only parameters at which some column of M is non-zero are computed. The others are zero, or equal to the
        offsets.
        """
        found, columns = [], coordinates.T.contiguous()
        for number, (shape, (reached, matrix)) in enumerate(zip(self.shapes, self._parts)):
            new = offsets is None
            array = coordinates.new_zeros(len(coordinates), *shape) if new else offsets[number].clone()
            array.flatten(1).index_add_(1, reached, (matrix @ columns).T.contiguous())
            found.append(array)
        return found

    def transposed(self, gradients: Sequence[Tensor]) -> Tensor:
        """Mᵀ g, of shape (m, d), for gradients g (m, *shape), computed for one member after another."""
        flat = torch.cat([each.flatten(1) for each in gradients], 1)
        # One by one, as a sparse product with several columns would first transpose `flat`.
        return torch.stack([self.rows @ each for each in flat])

    def part(self, some: slice) -> "Sparse":
        """The projection into some of the parameter tensors only, selected by the slice `some` of their list."""
        places = self.places[some]
        columns = slice(places[0].start, places[-1].stop) if places else slice(0, 0)
        return Sparse(self.unit[:, columns], self.shapes[some], self.rows.values())


def sparse_tensor(matrix: scipy.sparse.csr_array, like: Tensor) -> Tensor:
    """Convert a sparse matrix from scipy to torch, in the precision and on the device of `like`."""
    # torch's kernels take indices of 32 bits, and would convert longer ones in every product.
    starts, columns = (torch.as_tensor(each.astype(np.int32)) for each in (matrix.indptr, matrix.indices))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        values = torch.as_tensor(matrix.data, dtype=like.dtype)
        return torch.sparse_csr_tensor(
            starts, columns, values, matrix.shape, device=like.device, check_invariants=False
        )


class Fastfood(Projection):
    """Random projection M without a matrix in memory, at a cost of O(D log d) operations and O(D) memory.

    M consists of blocks of L rows, with L the smallest power of two ≥ d (Le et al. 2013, Li et al. 2018). Each block is
    η ⊙ H G Π H B, where B are random signs, Π is a random permutation, G a Gaussian diagonal and H a Hadamard matrix.
    `eta` is the metric η (D,), with an entry for each parameter. Columns have unit length up to fluctuations of order
    1/√D.
    """

    def __init__(self, dimension: int, shapes: Shapes, eta: np.ndarray, random: np.random.Generator, like: Tensor):
        super().__init__(dimension, shapes)
        used = np.flatnonzero(eta)
        self._size = 1 << max(0, dimension - 1).bit_length()
        shape = (-(-used.size // self._size), self._size)
        gaussian = random.standard_normal(shape)
        # Every column of a block H G Π H B has length √L |G|.
        length = np.sqrt(self._size * np.square(gaussian).sum() * used.size / gaussian.size)

        def tensor(values):
            return torch.as_tensor(values, dtype=like.dtype, device=like.device)

        self._signs = tensor(random.choice((-1.0, 1.0), shape))
        orders = random.permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1)
        self._permutations = torch.as_tensor(orders).to(like.device)
        self._gaussian = tensor(gaussian)
        weights = eta[used] / np.sqrt(np.mean(np.square(eta[used])))
        self._weights, self._used = tensor(weights / length), torch.as_tensor(used, device=like.device)

    def forward(self, coordinates: Tensor, offsets: Sequence[Tensor] | None = None) -> list[Tensor]:
        """M w for coordinates w (m, d), plus `offsets` if given, by two Hadamard transforms."""
        padded = torch.nn.functional.pad(coordinates, (0, self._size - self.dimension))
        mixed = hadamard(padded[:, None] * self._signs)
        mixed = mixed.gather(2, self._permutations.expand_as(mixed)).mul_(self._gaussian)
        found = hadamard(mixed).flatten(1)[:, : len(self._used)] * self._weights
        if len(self._used) < self.places[-1].stop:
            found = found.new_zeros(len(found), self.places[-1].stop).index_copy_(1, self._used, found)
        found = [found[:, place].reshape(-1, *shape) for place, shape in zip(self.places, self.shapes)]
        return found if offsets is None else [a + b for a, b in zip(found, offsets)]

    def transposed(self, gradients: Sequence[Tensor]) -> Tensor:
        """Mᵀ g, of shape (m, d), for gradients g (m, *shape), by the transforms of `forward` in reverse order."""
        flat = torch.cat([each.flatten(1) for each in gradients], 1)
        if len(self._used) < self.places[-1].stop:
            flat = flat.index_select(1, self._used)
        padded = torch.nn.functional.pad(flat * self._weights, (0, self._signs.numel() - len(self._used)))
        mixed = hadamard(padded.view(len(flat), *self._signs.shape)).mul_(self._gaussian)
        mixed = torch.empty_like(mixed).scatter_(2, self._permutations.expand_as(mixed), mixed)
        return (hadamard(mixed) * self._signs).sum(1)[:, : self.dimension]


def hadamard(values: Tensor) -> Tensor:
    """Apply the Hadamard matrix (entries ±1, Sylvester order) to the last axis, whose length is a power of two."""
    shape, result, left = values.shape, values.reshape(-1, values.shape[-1]), values.shape[-1]
    # Kronecker factors of size at most 32, each a small matrix product; the transposes restore the order of the axis.
    while left > 1:
        factor = min(left, 32)
        left //= factor
        result = (result.view(len(result), -1, factor) @ _hadamard_matrix(factor).to(values)).transpose(1, 2)
        result = result.reshape(len(result), -1)
    return result.view(shape)


@functools.cache
def _hadamard_matrix(size: int) -> Tensor:
    return torch.as_tensor(scipy.linalg.hadamard(size), dtype=torch.float64)
