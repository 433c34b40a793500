"""Factors of the second derivatives of losses with respect to the outputs.

The factor of an example is a matrix R such that R Rᵀ is the second derivative (k, k) of its loss with respect to its k
outputs.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Factor(ABC):
    """Factors R of n examples, each with k rows and r columns; `shape` is (n, k, r).

    Each subclass stores them in its own way in the tensor `entries` (n, …).
    """

    def __init__(self, entries: Tensor):
        self.entries, self.shape = entries, (*entries.shape[:2], entries.shape[-1])

    def to(self, like: Tensor) -> "Factor":
        """Return the factors in the precision and on the device of the tensor `like`."""
        return type(self)(self.entries.to(like))

    def part(self, some: slice) -> "Factor":
        """Return the factors of the examples in the slice `some`."""
        return type(self)(self.entries[some])

    def reduced(self) -> "Factor":
        """Return factors with the same R Rᵀ and, if possible, fewer columns; by default, return these factors."""
        return self

    @abstractmethod
    def multiplied(self, vectors: Tensor) -> Tensor:
        """Products R x (…, n, k) for `vectors` x (…, n, r)."""

    @abstractmethod
    def transposed(self, vectors: Tensor) -> Tensor:
        """Products Rᵀ x (…, n, r) for `vectors` x (…, n, k)."""

    @abstractmethod
    def transposed_first(self, vectors: Tensor) -> Tensor:
        """Products Rᵀ x (n, r, …) for `vectors` x (n, k, …): as `transposed`, but examples are the first axis."""

    @abstractmethod
    def traces(self, matrices: Tensor) -> Tensor:
        """Trace Tr RᵀMR for each example, (n,), in double precision; `matrices` (n, k, k) holds one M per example."""


class SoftmaxFactor(Factor):
    """Factors R = diag √p − p √pᵀ (n, k, k) of n examples, stored as the softmax p (n, k)."""

    def __init__(self, p: Tensor):
        super().__init__(p)
        self._roots = p.sqrt()

    def multiplied(self, vectors: Tensor) -> Tensor:
        """Products R x (…, n, k) for `vectors` x (…, n, k)."""
        return self._roots * (vectors - self._roots * (vectors * self._roots).sum(-1, keepdim=True))

    def transposed(self, vectors: Tensor) -> Tensor:
        """Products Rᵀ x (…, n, k) for `vectors` x (…, n, k)."""
        return self._projected(vectors, self._roots, -1)

    def transposed_first(self, vectors: Tensor) -> Tensor:
        """Products Rᵀ x (n, k, …) for `vectors` x (n, k, …): as `transposed`, but examples are the first axis."""
        return self._projected(vectors, self._roots.view(*self._roots.shape, *(1,) * (vectors.ndim - 2)), 1)

    @staticmethod
    def _projected(vectors: Tensor, roots: Tensor, axis: int) -> Tensor:
        parts = roots * vectors
        return parts - roots * (parts * roots).sum(axis, keepdim=True)

    def reduced(self) -> "DenseFactor":
        """Return factors R Q (n, k, k − 1) with (RQ)(RQ)ᵀ = R Rᵀ, computed without cancellation.

        The k − 1 columns of Q are an orthonormal basis of the orthogonal complement of √p. R Rᵀ is unchanged because
        R √p = 0.
        """
        n, k = self._roots.shape
        # Reflecting √p onto the axis of its largest entry avoids cancellation.
        largest = self._roots.argmax(1, keepdim=True)
        normal = self._roots.scatter_add(1, largest, torch.ones_like(self._roots[:, :1]))
        normal = torch.nn.functional.normalize(normal, dim=1)
        reflection = torch.eye(k).to(normal) - 2 * normal[:, :, None] * normal[:, None]
        others = torch.arange(k, device=normal.device).repeat(n, 1).scatter(1, largest, 0)[:, None, 1:]
        return DenseFactor(self._roots[:, :, None] * reflection.gather(2, others.expand(n, k, k - 1)))

    def entered(self) -> Tensor:
        """Return the factors R as a dense tensor (n, k, k)."""
        return torch.diag_embed(self._roots) - self.entries[:, :, None] * self._roots[:, None]

    def traces(self, matrices: Tensor) -> Tensor:
        """Trace Tr RᵀMR for each example, (n,), in double precision; `matrices` (n, k, k) holds one M per example."""
        p, matrices = self.entries.double(), matrices.double()
        return (p * matrices.diagonal(dim1=1, dim2=2)).sum(1) - torch.einsum("nk,nkj,nj->n", p, matrices, p)


class DenseFactor(Factor):
    """Factors R of n examples, stored entry by entry in a tensor (n, k, r)."""

    def multiplied(self, vectors: Tensor) -> Tensor:
        """Products R x (…, n, k) for `vectors` x (…, n, r)."""
        return torch.einsum("nkr,...nr->...nk", self.entries, vectors)

    def transposed(self, vectors: Tensor) -> Tensor:
        """Products Rᵀ x (…, n, r) for `vectors` x (…, n, k)."""
        return torch.einsum("nkr,...nk->...nr", self.entries, vectors)

    def transposed_first(self, vectors: Tensor) -> Tensor:
        """Products Rᵀ x (n, r, …) for `vectors` x (n, k, …): as `transposed`, but examples are the first axis."""
        return torch.einsum("nkr,nk...->nr...", self.entries, vectors)

    def traces(self, matrices: Tensor) -> Tensor:
        """Trace Tr RᵀMR for each example, (n,), in double precision; `matrices` (n, k, k) holds one M per example."""
        entries = self.entries.double()
        return torch.einsum("nkr,nkj,njr->n", entries, matrices.double(), entries)
