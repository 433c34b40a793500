"""Mean cosines between pairs of logit gradients, and ‖G‖_F, from blocks of their Gram matrix JᵀJ.

The columns of J (D, n · k) are the gradients of k logits at n examples. G is the Gauss–Newton matrix of the mean loss.
Other letters are those of `logit_gradients`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.curvature import arguments
from goldilocks_zone.curvature.logit_gradients import LogitGradients, fitting
from goldilocks_zone.models.loss_factors import Factor
from goldilocks_zone.models.problem import Array


@dataclass(frozen=True)
class Clustering:
    """Mean cosines between logit gradients of different examples (Fort & Ganguli 2019).

    same_logit_same_class: between gradients of logit k at two examples of class k, averaged over k. same_logit: between
    gradients of the same logit at any two examples. If the classes of the examples are permuted at random,
    same_logit_same_class has the expectation same_logit. other_logit: between gradients of different logits.
    other_logit_absolute: mean absolute cosine between gradients of different logits.
    """

    same_logit_same_class: float
    same_logit: float
    other_logit: float
    other_logit_absolute: float


class _Cosines:
    """Accumulator of cosines between logit gradients of all pairs of different examples, from blocks of JᵀJ.

    `gradients` holds J, which gives the lengths of the gradients. `labels` (n,) are the classes of the examples. With
    `without_last`, the parameters of the last layer are left out; the blocks that are added must leave them out, too.
    """

    def __init__(self, gradients: LogitGradients, labels: Array, *, without_last: bool):
        n, k = gradients.examples, gradients.classes
        labels = arguments.classes(labels, n, k).to(gradients.device)
        lengths = gradients.own(without_last=without_last).diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
        self._inverse = torch.where(lengths > 0, 1 / lengths, 0)
        self._members = torch.nn.functional.one_hot(labels, k).to(self._inverse)
        self._signed, self._absolute = torch.zeros(2, k, k, dtype=torch.float64)
        self._of_class = torch.zeros(k, dtype=torch.float64)

    def add(self, first: int, products: Tensor) -> None:
        """Add a block of `products` (b, k, n − first, k), rows of JᵀJ from example `first` on; overwrites the block.

        The layout is that of `logit_gradients.Block`.
        """
        inverse, members = self._inverse[first:], self._members[first:]
        count, weights = len(products), _weights(products)
        cosines = products.mul_(inverse[:count, :, None, None]).mul_(inverse)
        places = torch.arange(count, device=cosines.device)
        cosines[places, :, places] = 0
        same = cosines.diagonal(dim1=1, dim2=3)
        self._of_class += torch.einsum("bmk,mk,bk,m->k", same, members, members[:count], weights).double().cpu()
        self._signed += torch.einsum("kmj,m->kj", cosines.sum(0), weights).double().cpu()
        self._absolute += torch.einsum("kmj,m->kj", cosines.abs_().sum(0), weights).double().cpu()

    def clustering(self) -> Clustering:
        """Mean cosines, once all blocks are added."""
        n, k = self._members.shape
        counts, pairs = self._members.sum(0).double().cpu(), n * (n - 1)
        others = ~torch.eye(k, dtype=torch.bool)
        return Clustering(
            same_logit_same_class=float((self._of_class / (counts * (counts - 1)))[counts > 1].mean()),
            same_logit=float(self._signed.diagonal().mean()) / pairs,
            other_logit=float(self._signed[others].mean()) / pairs,
            other_logit_absolute=float(self._absolute[others].mean()) / pairs,
        )


class _Squares:
    """Accumulator of the sum of the squared entries of Rᵀ JᵀJ R, from blocks of JᵀJ.

    `factor` is R, with R Rᵀ the second derivative of the loss with respect to the logits.
    """

    def __init__(self, gradients: LogitGradients, factor: Factor):
        self._roots, self._examples, self._sum = fitting(factor, gradients), gradients.examples, 0.0

    def add(self, first: int, products: Tensor) -> None:
        """Add a block of `products` (b, k, n − first, k), rows of JᵀJ from example `first` on.

        The layout is that of `logit_gradients.Block`.
        """
        # R is block-diagonal over examples, so the rows of an example in Rᵀ JᵀJ R come from its rows in JᵀJ.
        rows, columns = (self._roots.part(slice(first, end)) for end in (first + len(products), None))
        whole = rows.transposed_first(columns.transposed(products))
        norms = torch.linalg.vector_norm(whole, dim=(0, 1, 3), dtype=torch.float64)
        self._sum += float((norms.square() * _weights(products)).sum())

    def norm(self) -> float:
        """‖G‖_F, which is ‖Rᵀ JᵀJ R‖_F/n, once all blocks are added."""
        return float(np.sqrt(self._sum)) / self._examples


def _weights(products: Tensor) -> Tensor:
    """Weights (m,) of the m column examples of a block (b, k, m, k) of JᵀJ: 1 for the first b, 2 for all later ones.

    Blocks below the diagonal of JᵀJ are not computed. By symmetry, the entries for later examples count for them, too.
    """
    weights = products.new_full((products.shape[2],), 2)
    weights[: len(products)] = 1
    return weights


def clustering(gradients: LogitGradients, labels: Array, *, without_last: bool = False) -> Clustering:
    """Mean cosines between logit gradients of different examples, whose classes are `labels` (n,).

    Classes with a single example do not enter same_logit_same_class. A zero gradient has cosine zero with all other
    gradients. `without_last` leaves out the parameters of the last layer. Raises ValueError unless there is one label
    for each example and, with `without_last`, the gradients are `layered`.
    """
    cosines = _Cosines(gradients, labels, without_last=without_last)
    for block in gradients.blocks():
        cosines.add(block.first, block.of_inner if without_last else block.whole)
    return cosines.clustering()


def frobenius_norm(gradients: LogitGradients, factor: Factor) -> float:
    """‖G‖_F of the mean loss, from the logit `gradients` J and the `factor` R of the loss at all examples.

    Raises ValueError if the factor is None, or if it does not match the gradients.
    """
    squares = _Squares(gradients, factor)
    for block in gradients.blocks():
        squares.add(block.first, block.whole)
    return squares.norm()


@dataclass(frozen=True)
class Pairs:
    """Clustering of logit gradients, also without the last layer, and ‖G‖_F.

    `without_last` is None if the gradients are not `layered`.
    """

    clustering: Clustering
    without_last: Clustering | None
    frobenius_norm: float


def measure(gradients: LogitGradients, labels: Array, factor: Factor) -> Pairs:
    """`clustering` with and without the last layer, and `frobenius_norm`, from one pass over all pairs of examples.

    The arguments are those of these two functions. Raises ValueError as they do. For gradients that are not `layered`,
    it does not raise but omits the clustering without the last layer.
    """
    whole = _Cosines(gradients, labels, without_last=False)
    inner = _Cosines(gradients, labels, without_last=True) if gradients.layered else None
    squares = _Squares(gradients, factor)
    for block in gradients.blocks():
        products = block.whole
        squares.add(block.first, products)
        whole.add(block.first, products)
        if inner:
            inner.add(block.first, block.of_inner)
    return Pairs(whole.clustering(), inner.clustering() if inner else None, squares.norm())
