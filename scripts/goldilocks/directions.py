"""Directions in parameter space, prepared for products with the layers of a chain.

One letter per axis: d directions, o outputs, i inputs of a layer.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from goldilocks import subspaces
from goldilocks.chains import Affine, Dense, affine_layers


class Directions:
    """Directions (d, D) in parameter space, and what products with them can leave out."""

    def __init__(self, values: Tensor, chain: tuple, sparse: scipy.sparse.csr_array | None = None):
        """`sparse`: what `subspaces.as_sparse` makes of the values, where that is known already."""
        self.values = values
        self._moves, self._sparse, self._cache = {}, {}, {}
        if sparse is None and values.device.type == "cpu":
            sparse = subspaces.as_sparse(values.numpy())
        for layer in affine_layers(chain):
            for place in filter(None, (layer.weight, layer.bias)):
                entries = values[:, place].count_nonzero() if sparse is None else sparse[:, place].nnz
                self._moves[place.start] = bool(entries)
            if sparse is None or values.device.type != "cpu" or not isinstance(layer, Dense):
                continue
            weights = sparse[:, layer.weight]
            if weights.nnz < subspaces.SPARSE_BELOW * math.prod(weights.shape):
                direction = np.repeat(np.arange(len(values)), np.diff(weights.indptr))
                indices = (direction, *np.divmod(weights.indices.astype(np.int64), layer.shape[1]))
                found = torch.as_tensor(weights.data, dtype=values.dtype)
                self._sparse[layer.weight.start] = tuple(map(torch.as_tensor, indices)), found

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, start: int, stop: int) -> "Directions":
        """The directions from `start` to `stop`."""
        if (start, stop) not in self._cache:
            part = object.__new__(Directions)
            part.values, part._moves, part._cache, part._sparse = self.values[start:stop], self._moves, {}, {}
            for place, (indices, values) in self._sparse.items():
                ours = slice(*torch.searchsorted(indices[0], torch.tensor([start, stop])).tolist())
                direction, o, i = (index[ours] for index in indices)
                part._sparse[place] = (direction - start, o, i), values[ours]
            self._cache[start, stop] = part
        return self._cache[start, stop]

    def moves(self, place: slice | None) -> bool:
        """Whether any direction has entries at this place of the parameter vector."""
        return place is not None and self._moves[place.start]

    def entries(self, layer: Affine) -> int:
        """Number of non-zero entries of all Ẇ together, where they are few."""
        return len(self._sparse[layer.weight.start][1])

    def is_sparse(self, layer: Affine) -> bool:
        """Whether products with these weights are better done sparsely."""
        return layer.weight.start in self._sparse

    def sparse_rows(self, layer: Affine) -> Tensor:
        """Ẇ of all directions as one sparse matrix (d · o, i)."""

        def made():
            (direction, o, i), values = self._sparse[layer.weight.start]
            return _sparse_matrix(direction * layer.shape[0] + o, i, values, len(self) * layer.shape[0], layer.shape[1])

        return self._once(layer, "rows", made)

    def sparse_columns(self, layer: Affine) -> Tensor:
        """Ẇᵀ of all directions as one sparse matrix (d · i, o)."""

        def made():
            (direction, o, i), values = self._sparse[layer.weight.start]
            return _sparse_matrix(direction * layer.shape[1] + i, o, values, len(self) * layer.shape[1], layer.shape[0])

        return self._once(layer, "columns", made)

    def by_input(self, layer: Affine) -> dict[int, tuple[Tensor, Tensor]]:
        """For each input i that some Ẇ has entries for: the outputs o of these entries, and the values (d, o)."""

        def made():
            weights = layer.weights(self.values)
            used = (weights != 0).any(0)
            found = {}
            for i in used.any(0).nonzero().flatten().tolist():
                outputs = used[:, i].nonzero().flatten()
                found[i] = outputs, weights[:, outputs, i].contiguous()
            return found

        return self._once(layer, "inputs", made)

    def stacked(self, layer: Affine) -> Tensor:
        """Ẇ of all directions in the order (o, d, i)."""
        return self._once(layer, "stacked", lambda: layer.weights(self.values).transpose(0, 1).contiguous())

    def _once(self, layer: Affine, name: str, make: Callable) -> object:
        key = (layer.weight.start, name)
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def _sparse_matrix(rows: Tensor, columns: Tensor, values: Tensor, height: int, width: int) -> Tensor:
    """A sparse matrix in rows, from its entries in any order."""
    rows, order = rows.sort(stable=True)
    starts = torch.searchsorted(rows, torch.arange(height + 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns[order], values[order], (height, width), check_invariants=False)
