"""Directions in parameter space, with access to their entries in each layer of a chain.

A chain is a network as a tuple of layers (`models.chains`). For dense layers in which few entries of the directions are
non-zero, the entries are also stored in sparse form on a CPU, because sparse products are faster.
"""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from goldilocks_zone.curvature.arguments import Plane
from goldilocks_zone.models.chains import affine_layers
from goldilocks_zone.models.layers import Affine, Dense
from goldilocks_zone.subspaces import planes

Made = TypeVar("Made")


class Directions:
    """Directions (d, D) in parameter space, with sparse forms of their entries in layers where few are non-zero.

    Ẇ denotes the entries of a direction in the weights of a layer, (o, i) for a dense one. A place is a slice of the
    parameter vector.
    """

    def __init__(self, given: Plane, chain: tuple, sparse: scipy.sparse.csr_array | None = None):
        """Prepare `given` directions (d, D), a tensor or, on the CPU only, a sparse matrix, for the layers of a chain.

        `sparse` is the result of `planes.as_sparse` for the tensor, if already computed.
        """
        self._moves, self._sparse, self._cache = {}, {}, {}
        shape: Any = given.shape
        self._entries, self._count, self.dtype = _entries(given), shape[0], torch.as_tensor(given.data).dtype
        on_cpu = not isinstance(given, Tensor) or given.device.type == "cpu"
        if sparse is None and on_cpu:
            sparse = planes.as_sparse(given.numpy()) if isinstance(given, Tensor) else given
        for layer in affine_layers(chain):
            for place in filter(None, (layer.weight, layer.bias)):
                # Test row by row, as the first row usually has a non-zero entry.
                moves = any(map(torch.any, self.part(place))) if sparse is None else sparse[:, place].nnz > 0
                self._moves[place.start, place.stop] = bool(moves)
            if sparse is None or not on_cpu or not isinstance(layer, Dense):
                continue
            weights = sparse[:, layer.weight]
            if weights.nnz < planes.SPARSE_BELOW * math.prod(weights.shape):
                direction = np.repeat(np.arange(len(self)), np.diff(weights.indptr))
                indices = (direction, *np.divmod(weights.indices.astype(np.int64), layer.shape[1]))
                found = torch.as_tensor(weights.data, dtype=self.dtype)
                self._sparse[layer.weight.start] = tuple(map(torch.as_tensor, indices)), found

    def __len__(self) -> int:
        return self._count

    def part(self, place: slice) -> Tensor:
        """Entries (d, s) of all directions at a `place`, a slice of s entries of the parameter vector."""
        return self._entries(place)

    def weights(self, layer: Affine) -> Tensor:
        """Tangents Ẇ (d, *shape) of the weights of a `layer` along all directions; shape is that of the weights."""
        return self.part(layer.weight).unflatten(-1, layer.shape)

    def rows(self, start: int, stop: int) -> "Directions":
        """The directions with indices from `start` up to `stop`, which is excluded."""
        if (start, stop) not in self._cache:
            self._cache[start, stop] = _Rows(self, start, stop)
        return self._cache[start, stop]

    def moves(self, place: slice | None) -> bool:
        """Whether any direction has a non-zero entry in the slice `place` of the parameters; False if it is None."""
        if place is None:
            return False
        if (place.start, place.stop) not in self._moves:
            self._moves[place.start, place.stop] = bool(self.part(place).any())
        return self._moves[place.start, place.stop]

    def entries(self, layer: Affine) -> int:
        """Number of non-zero entries of Ẇ, summed over all directions, in a `layer` for which `is_sparse` is true."""
        return len(self._sparse[layer.weight.start][1])

    def is_sparse(self, layer: Affine) -> bool:
        """Whether Ẇ of this layer is stored in sparse form: on a CPU, for a dense layer with few non-zero entries."""
        return layer.weight.start in self._sparse

    def sparse_rows(self, layer: Affine) -> Tensor:
        """Ẇ of all directions as one sparse matrix (d · o, i), for a `layer` for which `is_sparse` is true."""
        return self._once(layer, "rows", lambda: self._matrix(layer, 0))

    def sparse_columns(self, layer: Affine) -> Tensor:
        """Ẇᵀ of all directions as one sparse matrix (d · i, o), for a `layer` for which `is_sparse` is true."""
        return self._once(layer, "columns", lambda: self._matrix(layer, 1))

    def filled(self, layer: Affine, axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows with non-zero entries: of Ẇ (o, i) if `axis` is 0, of Ẇᵀ (i, o) if `axis` is 1.

        All directions together have m such rows. Returns three tensors: the index (m,) of each row's direction, the
        index (m,) of the row in Ẇ or Ẇᵀ, and the rows themselves as one sparse matrix (m, …). `is_sparse` must be true
        for the `layer`.
        """

        def made():
            whole = self._matrix(layer, axis)
            starts = whole.crow_indices()
            rows = starts.diff().nonzero()[:, 0]
            size = len(rows), layer.shape[1 - axis]
            matrix = _csr(torch.cat([starts[rows], starts[-1:]]), whole.col_indices(), whole.values(), size)
            return rows // layer.shape[axis], rows % layer.shape[axis], matrix

        return self._once(layer, f"filled {axis}", made)

    def _matrix(self, layer: Affine, axis: int) -> Tensor:
        """Ẇ of all directions as one sparse matrix (d · o, i) for `axis` 0, or Ẇᵀ as (d · i, o) for `axis` 1."""
        (direction, *places), values = self._sparse[layer.weight.start]
        rows, order = (direction * layer.shape[axis] + places[axis]).sort(stable=True)
        size = len(self) * layer.shape[axis], layer.shape[1 - axis]
        starts = torch.searchsorted(rows, torch.arange(size[0] + 1))
        return _csr(starts, places[1 - axis][order], values[order], size)

    def by_input(self, layer: Affine) -> dict[int, tuple[Tensor, Tensor]]:
        """Non-zero entries of Ẇ in all directions, by input i of a `layer` for which `is_sparse` is true.

        Returns a dictionary from i to a pair of tensors. The first holds the numbers (m,) of the m outputs for which
        some direction has an entry at input i; the second holds the values (d, m) of these entries in all directions.
        Inputs without entries are omitted.
        """

        def made():
            (direction, o, i), values = self._sparse[layer.weight.start]
            places, column = torch.unique(i * layer.shape[0] + o, return_inverse=True)
            table = values.new_zeros(len(self), len(places))
            table[direction, column] = values
            inputs, counts = torch.unique_consecutive(places // layer.shape[0], return_counts=True)
            outputs = (places % layer.shape[0]).split(counts.tolist())
            columns = (each.contiguous() for each in table.split(counts.tolist(), 1))
            return dict(zip(inputs.tolist(), zip(outputs, columns)))

        return self._once(layer, "inputs", made)

    def stacked(self, layer: Affine) -> Tensor:
        """Ẇ of all directions in a dense `layer`, as one contiguous tensor (o, d, i)."""
        return self._once(layer, "stacked", lambda: self.weights(layer).transpose(0, 1).contiguous())

    def _once(self, layer: Affine, name: str, make: Callable[[], Made]) -> Made:
        key = (layer.weight.start, name)
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


class _Rows(Directions):
    """The directions of `whole` with indices from `start` up to `stop`, which is excluded.

    They share the memory of their entries with `whole`.
    """

    def __init__(self, whole: Directions, start: int, stop: int):
        # Do not reference `whole`, which caches its rows: the reference cycle would delay freeing both.
        self._entries, self._place, self.dtype = whole._entries, slice(start, stop), whole.dtype
        self._count = len(range(*self._place.indices(len(whole))))
        self._moves, self._cache, self._sparse = dict(whole._moves), {}, {}
        for place, (indices, values) in whole._sparse.items():
            ours = slice(*torch.searchsorted(indices[0], torch.tensor([start, stop])).tolist())
            direction, o, i = (index[ours] for index in indices)
            self._sparse[place] = (direction - start, o, i), values[ours]

    def part(self, place: slice) -> Tensor:
        return self._entries(place)[self._place]


def _csr(starts: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, size, check_invariants=False)


def _entries(given: Plane) -> Callable[[slice], Tensor]:
    """Map from a place of the parameter vector to the entries (d, …) of all directions there."""
    if isinstance(given, Tensor):
        return lambda place: given[:, place]
    dense = functools.cache(lambda start, stop: torch.from_numpy(given[:, start:stop].toarray()))
    return lambda place: dense(place.start, place.stop)
