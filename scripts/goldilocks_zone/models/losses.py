"""Losses of a network's outputs as objects: values, derivatives by the outputs, and factors of Gauss–Newton matrices.

Outputs z are (…, n, k), with labels (n,), or (…, n) where each of several networks has examples of its own. A total is
n times the mean loss: the sum over examples where they are separate. Derivatives that a loss does not write out follow
by automatic differentiation, so that a new one needs its total, or its values, alone. Everything that enters a softmax
is in double precision: at near ties the error of p is eps times the logits.
"""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

Map = Callable[[Tensor], Tensor]
NEGATIVE = 1e-12  # eigenvalues of a second derivative, relative to the largest, that rounding explains


class Loss(ABC):
    """A loss of a whole batch, which may couple its examples.

    classifies: labels are numbers of classes; else whatever the loss takes, one row for each example, or none.
    shift_invariant: a constant added to all outputs of an example changes nothing.
    """

    name: str
    couples_examples = True
    classifies = True
    shift_invariant = False

    @abstractmethod
    def total(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """n times the mean loss, shape (…)."""

    def select(self, members: Tensor) -> "Loss":
        """The loss of some members (m',), of one that has a value of its own for each member of outputs (m, n, k)."""
        return self

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Derivative of the total by the outputs, shape (…, n, k)."""
        return grad(lambda z: self.total(z, labels).sum())(outputs)

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """The map from tangents (n, k), in `dtype` if given, to products with the second derivative by the outputs."""
        gradient = grad(lambda z: self.total(z, labels).sum())
        return lambda tangents: jvp(gradient, (outputs,), (tangents.to(outputs.dtype),))[1].to(tangents.dtype)

    def factor(self, outputs: Tensor, labels: Tensor) -> "Factor | None":
        """R with R Rᵀ the second derivative by the outputs (n, k) of each example's loss; None where there is none."""
        return None

    def relative(self, tangents: Tensor, classes: Tensor) -> Tensor:
        """Logit tangents (d, k, n); of a shift-invariant loss relative to those of the likeliest `classes` (n,)."""
        if not self.shift_invariant:
            return tangents
        # Nothing cancels then where a softmax is saturated.
        return tangents - tangents.gather(1, classes.expand(len(tangents), 1, -1))

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Totals of G = Σ żᵀ S ż (p, d, d) and its diagonal for each example (p, n, d), at p points, S the loss's
        second derivative, from `outputs` (p, n, k) and shared tangents ż (d, k, n) `relative` to their likeliest
        `classes` (n,). The diagonal is NaN where examples are coupled.
        """
        along, products, traces = tangents.double().transpose(1, 2), [], []
        for z in outputs:
            curved = vmap(self.curvature(z, labels))(along)
            products.append(torch.einsum("dnk,enk->de", along, curved))
            traces.append((along * curved).sum(2).T)
        products, traces = torch.stack(products), torch.stack(traces)
        return (products + products.mT) / 2, torch.full_like(traces, torch.nan) if self.couples_examples else traces


class SeparateLoss(Loss):
    """A loss of each example by itself."""

    couples_examples = False

    @abstractmethod
    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of each example, shape (…, n)."""

    def total(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The sum over examples, shape (…)."""
        return self.values(outputs, labels).sum(-1)

    def factor(self, outputs: Tensor, labels: Tensor) -> "Factor | None":
        """R from the eigenvectors of each example's second derivative; None where one has a negative eigenvalue."""
        columns = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
        curved = vmap(self.curvature(outputs, labels))(columns[:, None].expand(-1, *outputs.shape))
        values, vectors = torch.linalg.eigh(curved.permute(1, 0, 2))
        if values.min() < -NEGATIVE * values.abs().max():
            return None
        return DenseFactor(vectors * values.clamp_min(0).sqrt()[:, None])


class CrossEntropy(SeparateLoss):
    """−log p_y in nats, with the softmax p of the logits."""

    name = "cross_entropy"
    shift_invariant = True

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """−log p_y, shape (…, n)."""
        chosen = labels.expand(outputs.shape[:-1])[..., None]
        return -torch.log_softmax(outputs, -1).gather(-1, chosen)[..., 0]

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """p − y, shape (…, n, k)."""
        return torch.softmax(outputs, -1) - _one_hot(outputs, labels)

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """Products (diag p − ppᵀ) ż."""
        p = torch.softmax(outputs, -1).to(dtype or outputs.dtype)
        return lambda tangents: p * (tangents - (p * tangents).sum(-1, keepdim=True))

    def factor(self, outputs: Tensor, labels: Tensor) -> "SoftmaxFactor":
        """R = diag √p − p √pᵀ."""
        return SoftmaxFactor(torch.softmax(outputs, -1))

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_n (Σ_k p ż żᵀ − m mᵀ) with m = Σ_k p ż: 1/k of its first term at least, as ż of the likeliest is zero."""
        weights = torch.softmax(outputs, -1)
        weights[:, torch.arange(len(classes)), classes] = 0
        # Probabilities of the other classes may lie below the range of single precision.
        units = weights.amax((1, 2), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        weights = (weights / units).to(tangents.dtype)
        products, traces = _weighted_products(weights, units, tangents)
        means = torch.bmm(weights.transpose(0, 1), tangents.permute(2, 1, 0)).transpose(0, 1)
        traces -= (units * means.double()).square()
        products -= units**2 * torch.bmm(means.transpose(1, 2), means).double()
        return products, traces


class MeanSquaredError(SeparateLoss):
    """Half the squared distance to the one-hot label."""

    name = "mean_squared_error"

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """|z − y|²/2, shape (…, n)."""
        return (outputs - _one_hot(outputs, labels)).square().sum(-1) / 2

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """z − y, shape (…, n, k)."""
        return outputs - _one_hot(outputs, labels)

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """The tangents themselves."""
        return lambda tangents: tangents

    def factor(self, outputs: Tensor, labels: Tensor) -> "DenseFactor":
        """The identity."""
        return DenseFactor(torch.eye(outputs.shape[1]).to(outputs).expand(len(outputs), -1, -1))

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_n Σ_k ż żᵀ."""
        weights = torch.ones_like(outputs).to(tangents.dtype)
        return _weighted_products(weights, outputs.new_ones(len(outputs), 1, 1), tangents)


def _weighted_products(weights: Tensor, units: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_n Σ_k w ż żᵀ (p, d, d) and its diagonal for each example (p, n, d), in units (p, 1, 1) of weights (p, n, k)."""
    by_example, by_point = tangents.permute(2, 1, 0), weights.transpose(0, 1)
    traces = units * torch.bmm(by_point, by_example.square()).transpose(0, 1).double()
    roots = weights.sqrt().transpose(1, 2)
    factors = ((tangents * root).flatten(1) for root in roots)
    return units * torch.stack([factor @ factor.T for factor in factors]).double(), traces


def _one_hot(outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, outputs.shape[-1]).to(outputs.dtype)


def likeliest(outputs: Tensor) -> Tensor:
    """The class (n,) with the largest logit, the same at p points, from outputs (p, n, k) of the point with the
    largest finite ones: at others they may all have vanished, or not be finite."""
    largest = outputs.abs().amax((1, 2))
    return outputs[torch.where(torch.isfinite(largest), largest, -1.0).argmax()].argmax(-1)


class Factor:
    """R (n, k, r) of n examples, from `entries` (n, …)."""

    def __init__(self, entries: Tensor):
        self.entries, self.shape = entries, (*entries.shape[:2], entries.shape[-1])

    def to(self, like: Tensor) -> "Factor":
        """The same in the precision and on the device of a tensor."""
        return type(self)(self.entries.to(like))

    def part(self, some: slice) -> "Factor":
        """R of some of the examples."""
        return type(self)(self.entries[some])

    def reduced(self) -> "Factor":
        """A factor of the same R Rᵀ with as few columns as is known."""
        return self


class SoftmaxFactor(Factor):
    """R = diag √p − p √pᵀ of n examples, (n, k, k), from a softmax p (n, k); it is never formed."""

    def __init__(self, p: Tensor):
        super().__init__(p)
        self._roots = p.sqrt()

    def multiplied(self, vectors: Tensor) -> Tensor:
        """R x (…, n, k) for x (…, n, r)."""
        return self._roots * (vectors - self._roots * (vectors * self._roots).sum(-1, keepdim=True))

    def transposed(self, vectors: Tensor) -> Tensor:
        """Rᵀ x (…, n, r) for x (…, n, k)."""
        return self._projected(vectors, self._roots, -1)

    def transposed_first(self, vectors: Tensor) -> Tensor:
        """Rᵀ x (n, r, …) for x (n, k, …)."""
        return self._projected(vectors, self._roots.view(*self._roots.shape, *(1,) * (vectors.ndim - 2)), 1)

    @staticmethod
    def _projected(vectors: Tensor, roots: Tensor, axis: int) -> Tensor:
        parts = roots * vectors
        return parts - roots * (parts * roots).sum(axis, keepdim=True)

    def reduced(self) -> "DenseFactor":
        """R Q (n, k, k − 1) with the same R Rᵀ: Q leaves out √p, which R takes to zero. To rounding of each entry."""
        n, k = self._roots.shape
        # The reflection of √p to the axis of its largest entry, where nothing cancels.
        largest = self._roots.argmax(1, keepdim=True)
        normal = self._roots.scatter_add(1, largest, torch.ones_like(self._roots[:, :1]))
        normal = torch.nn.functional.normalize(normal, dim=1)
        reflection = torch.eye(k).to(normal) - 2 * normal[:, :, None] * normal[:, None]
        others = torch.arange(k, device=normal.device).repeat(n, 1).scatter(1, largest, 0)[:, None, 1:]
        return DenseFactor(self._roots[:, :, None] * reflection.gather(2, others.expand(n, k, k - 1)))

    def traces(self, matrices: Tensor) -> Tensor:
        """Tr RᵀMR (n,), in double precision, for a matrix M of each example (n, k, k)."""
        p, matrices = self.entries.double(), matrices.double()
        return (p * matrices.diagonal(dim1=1, dim2=2)).sum(1) - torch.einsum("nk,nkj,nj->n", p, matrices, p)


class DenseFactor(Factor):
    """R of n examples given by all entries (n, k, r)."""

    def multiplied(self, vectors: Tensor) -> Tensor:
        """R x (…, n, k) for x (…, n, r)."""
        return torch.einsum("nkr,...nr->...nk", self.entries, vectors)

    def transposed(self, vectors: Tensor) -> Tensor:
        """Rᵀ x (…, n, r) for x (…, n, k)."""
        return torch.einsum("nkr,...nk->...nr", self.entries, vectors)

    def transposed_first(self, vectors: Tensor) -> Tensor:
        """Rᵀ x (n, r, …) for x (n, k, …)."""
        return torch.einsum("nkr,nk...->nr...", self.entries, vectors)

    def traces(self, matrices: Tensor) -> Tensor:
        """Tr RᵀMR (n,), in double precision, for a matrix M of each example (n, k, k)."""
        entries = self.entries.double()
        return torch.einsum("nkr,nkj,njr->n", entries, matrices.double(), entries)


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (CrossEntropy(), MeanSquaredError())}


def named(loss: str | Loss) -> Loss:
    """The loss of a name; an object is returned. Raises ValueError with the nearest name if no loss has this one."""
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        close = difflib.get_close_matches(str(loss), LOSSES, n=1)
        advice = f"did you mean {close[0]}?" if close else f"use one of {', '.join(LOSSES)}"
        raise ValueError(f"loss {loss!r} is unknown: {advice}")
    return LOSSES[loss]
