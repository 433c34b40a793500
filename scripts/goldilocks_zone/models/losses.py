"""Losses of network outputs as objects: values, derivatives with respect to outputs, and Gauss–Newton factors.

Outputs z are (…, n, k), with labels (n,), or (…, n) if several networks have examples of their own. A dot marks
tangents. A total is n times the mean loss: the sum over examples, unless the loss couples them. A new loss needs only
its total or its values; derivatives that it does not define come from automatic differentiation. Inputs of a softmax p
are in double precision, since near ties the error of p is eps times the logits.
"""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from goldilocks_zone.models.loss_factors import DenseFactor, Factor, SoftmaxFactor

Map = Callable[[Tensor], Tensor]
NEGATIVE = 1e-12  # size of negative eigenvalues, relative to the largest, that rounding explains


class Loss(ABC):
    """A loss of a whole batch, which may couple its examples.

    classifies: labels are class numbers; otherwise, their meaning depends on the loss, with one row for each example or
    no labels at all. shift_invariant: adding a constant to all outputs of an example does not change the loss.
    """

    name: str
    layout: object = None  # a fitted loss describes the outputs' axes here
    couples_examples = True
    classifies = True
    shift_invariant = False

    @abstractmethod
    def total(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """n times the mean loss, shape (…)."""

    def amount(self, labels: Tensor) -> float:
        """Divisor n of totals for the mean: the sum of the examples' weights."""
        return len(labels)

    def class_counts(self, labels: Tensor, classes: int) -> Tensor | float:
        """Number of elements of each of k `classes`, (k,); NaN if labels are not classes."""
        return torch.bincount(labels, minlength=classes) if self.classifies else torch.nan

    def fitted(self, shape: Sequence[int], labels: Tensor | None) -> "Loss":
        """Return the loss for outputs of a given `shape` per example, flattened to (n, k).

        `labels` are some of the labels (n, …). Raises ValueError if the loss does not take outputs of this shape.
        """
        if len(shape) == 1:
            return self
        raise ValueError(
            f"the network gives outputs of shape {tuple(shape)} for one example and the loss {self.name} takes (k,): "
            "wrap the network in a module that returns only logits (n, k), such as those of one token or the mean over "
            "tokens, or give a loss for several elements of an example, such as models.losses.CrossEntropy()"
        )

    def elements(self, outputs: Tensor, labels: Tensor, *tangents: Tensor) -> tuple["Loss", Tensor, ...]:
        """The loss of single elements, with their outputs (…, m, k), labels (m, …) and tangents (d, k, m).

        An example is one element unless it has several outputs with a loss each, such as tokens.
        """
        return self, outputs, labels, *tangents

    def select(self, members: Tensor) -> "Loss":
        """Restrict the loss to some members (m',) of outputs (m, n, k); by default itself, as all members share it."""
        return self

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Derivative of the total with respect to the outputs, shape (…, n, k)."""
        return grad(lambda z: self.total(z, labels).sum())(outputs)

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """Map from tangents (n, k) to products with the second derivative, which a subclass may hold in `dtype`."""
        gradient = grad(lambda z: self.total(z, labels).sum())
        return lambda tangents: jvp(gradient, (outputs,), (tangents.to(outputs.dtype),))[1].to(tangents.dtype)

    def factor(self, outputs: Tensor, labels: Tensor) -> Factor | None:
        """Factor R of the second derivative R Rᵀ of each example's loss at outputs (n, k); None if there is none."""
        return None

    def relative(self, tangents: Tensor, classes: Tensor) -> Tensor:
        """Logit tangents (d, k, n); for a shift-invariant loss, minus the tangents of the likeliest `classes` (n,)."""
        if not self.shift_invariant:
            return tangents
        # This avoids cancellation where a softmax is saturated.
        return tangents - tangents.gather(1, classes.expand(len(tangents), 1, -1))

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Totals of G = Σ żᵀ S ż (p, d, d) at p points, and its diagonal for each example (p, n, d).

        S is the loss's second derivative at `outputs` (p, n, k). The tangents ż (d, k, n) are shared by all points and
        `relative` to their likeliest `classes` (n,). The diagonal is NaN if examples are coupled.
        """
        along, products, traces = tangents.double().transpose(1, 2), [], []
        for z in outputs:
            curved = vmap(self.curvature(z, labels))(along)
            products.append(torch.einsum("dnk,enk->de", along, curved))
            traces.append((along * curved).sum(2).T)
        products, traces = torch.stack(products), torch.stack(traces)
        return (products + products.mT) / 2, torch.full_like(traces, torch.nan) if self.couples_examples else traces


class SeparateLoss(Loss):
    """A loss that does not couple examples."""

    couples_examples = False

    @abstractmethod
    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of each example, shape (…, n)."""

    def total(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The sum over examples, shape (…)."""
        return self.values(outputs, labels).sum(-1)

    def factor(self, outputs: Tensor, labels: Tensor) -> Factor | None:
        """R from the eigenvectors of each example's second derivative; None if any has a negative eigenvalue."""
        columns = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
        curved = vmap(self.curvature(outputs, labels))(columns[:, None].expand(-1, *outputs.shape))
        values, vectors = torch.linalg.eigh(curved.permute(1, 0, 2))
        if values.min() < -NEGATIVE * values.abs().max():
            return None
        return DenseFactor(vectors * values.clamp_min(0).sqrt()[:, None])


class CrossEntropy(SeparateLoss):
    """−log p_y in nats, with the softmax p of the logits, and with torch's options.

    weight (k,): weight of each class; the mean is then over the sum of the labels' weights. ignore_index: label of
    examples that are left out. label_smoothing ε: labels become (1 − ε) y + ε/k. Labels are class numbers (n,) or
    probabilities (n, k); with probabilities, weights do not enter the mean's divisor. Outputs (n, …, k) with labels
    (n, …), of tokens or pixels, have a loss for each element; class_axis is their axis of classes.

    Raises ValueError if a weight is negative or ε is not in [0, 1].
    """

    name = "cross_entropy"
    shift_invariant = True

    def __init__(
        self,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        class_axis: int = -1,
    ):
        self.weight = None if weight is None else torch.as_tensor(weight).detach().double()
        self.ignore_index, self.label_smoothing, self.class_axis = ignore_index, label_smoothing, class_axis
        if self.weight is not None and not (self.weight >= 0).all():
            raise ValueError("a class has a negative weight: give weights from zero on")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing {label_smoothing} is not between 0 and 1: give one that is")

    @property
    def is_plain(self) -> bool:
        """True without class weights, ignored labels and label smoothing."""
        return self.weight is None and self.ignore_index is None and not self.label_smoothing

    def amount(self, labels: Tensor) -> float:
        """Sum of the weights of the labels that are not ignored, which is the divisor of torch's mean."""
        if labels.is_floating_point():
            return len(labels)
        counted = labels if self.ignore_index is None else labels[labels != self.ignore_index]
        return counted.numel() if self.weight is None else float(self.weight.to(labels.device)[counted].sum())

    def class_counts(self, labels: Tensor, classes: int) -> Tensor | float:
        """Number of elements of each of k `classes`, (k,); NaN if some are ignored."""
        if labels.is_floating_point():
            return labels.sum(0)
        ignored = self.ignore_index is not None and bool((labels == self.ignore_index).any())
        return torch.nan if ignored else super().class_counts(labels, classes)

    def fitted(self, shape: Sequence[int], labels: Tensor | None) -> Loss:
        """Return this loss, or one for each element if outputs have more than one axis."""
        return self if len(shape) == 1 else PerElement(self, shape, self.class_axis)

    def targets(self, outputs: Tensor, labels: Tensor) -> Tensor | None:
        """Targets t (…, n, k) of the loss −Σ t log p; None if they are one at the label and zero elsewhere."""
        if labels.is_floating_point():
            found = labels.to(outputs)
        elif self.is_plain:
            return None
        elif self.ignore_index is None:
            found = _one_hot(outputs, labels)
        else:
            counts = labels != self.ignore_index
            found = _one_hot(outputs, labels.where(counts, 0)) * counts[..., None]
        k = outputs.shape[-1]
        found = (1 - self.label_smoothing) * found + self.label_smoothing / k * found.sum(-1, keepdim=True)
        return (found if self.weight is None else found * self.weight.to(outputs)).expand(outputs.shape)

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """−Σ t log p, shape (…, n)."""
        targets = self.targets(outputs, labels)
        if targets is not None:
            return -(targets * torch.log_softmax(outputs, -1)).sum(-1)
        chosen = labels.expand(outputs.shape[:-1])[..., None]
        return -torch.log_softmax(outputs, -1).gather(-1, chosen)[..., 0]

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """p Σt − t, shape (…, n, k), with `targets` t."""
        targets = self.targets(outputs, labels)
        if targets is None:
            return torch.softmax(outputs, -1) - _one_hot(outputs, labels)
        return torch.softmax(outputs, -1) * targets.sum(-1, keepdim=True) - targets

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """Map from tangents ż to Σt (diag p − ppᵀ) ż, with `targets` t and p in `dtype` if given."""
        p = torch.softmax(outputs, -1).to(dtype or outputs.dtype)
        masses = self._masses(outputs, labels)
        q = p if masses is None else p * masses[..., None].to(p)
        return lambda tangents: q * (tangents - (p * tangents).sum(-1, keepdim=True))

    def factor(self, outputs: Tensor, labels: Tensor) -> Factor:
        """R = (diag √p − p √pᵀ) √Σt, with `targets` t."""
        found, masses = SoftmaxFactor(torch.softmax(outputs, -1)), self._masses(outputs, labels)
        return found if masses is None else DenseFactor(found.entered() * masses.sqrt()[:, None, None])

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_n Σt (Σ_k p ż żᵀ − m mᵀ) with m = Σ_k p ż, and its diagonal for each example; shapes: see `Loss`.

        p: softmax of the outputs. Σt: sum of an example's `targets`, one for plain labels. The difference is at least
        1/k of its first term, since ż of the likeliest class is zero.
        """
        if (masses := self._masses(outputs[0], labels)) is not None:
            tangents = tangents * masses.sqrt().to(tangents)
        weights = torch.softmax(outputs, -1)
        weights[:, torch.arange(len(classes)), classes] = 0
        weights, units = _in_units(weights, tangents.dtype)
        products, traces = _weighted_products(weights, units, tangents)
        means = torch.bmm(weights.transpose(0, 1), tangents.permute(2, 1, 0)).transpose(0, 1)
        traces -= (units * means.double()).square()
        products -= units**2 * torch.bmm(means.transpose(1, 2), means).double()
        return products, traces

    def _masses(self, outputs: Tensor, labels: Tensor | None) -> Tensor | None:
        """Σt of each example (…, n); None if all are one, as without labels."""
        targets = None if labels is None else self.targets(outputs, labels)
        return None if targets is None else targets.sum(-1)


class PerElement(SeparateLoss):
    """Sum of a loss over the elements of an example, such as tokens or pixels.

    Network outputs have a `shape` for each example, with one axis of k classes, and are given flattened, (…, n, K) with
    K = T k for T elements. Labels (n, …) lack the axis of classes unless they are probabilities. Raises ValueError if
    class_axis is neither 1 nor −1.
    """

    def __init__(self, single: CrossEntropy, shape: Sequence[int], class_axis: int):
        self.single, self.name, self.shift_invariant = single, single.name, single.shift_invariant
        if class_axis not in (1, -1):
            raise ValueError(f"class_axis {class_axis} is neither 1 nor -1: let classes come first or last")
        self.leading = class_axis == 1
        self.classes = self.layout = shape[0 if self.leading else -1]

    def amount(self, labels: Tensor) -> float:
        """The sum of weights over all elements."""
        return self.single.amount(self._labels(labels))

    def class_counts(self, labels: Tensor, classes: int) -> Tensor | float:
        """Number of elements of each of k `classes`, (k,); NaN if some are ignored."""
        return self.single.class_counts(self._labels(labels), classes)

    def elements(self, outputs: Tensor, labels: Tensor, *tangents: Tensor) -> tuple[Loss, Tensor, ...]:
        """Return the loss of single elements, and outputs (…, n T, k), labels (n T, …) and tangents (d, k, n T)."""
        along = (self._of_elements(each.mT).flatten(1, 2).mT for each in tangents)
        return self.single, self._of_elements(outputs).flatten(-3, -2), self._labels(labels), *along

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of each example, shape (…, n)."""
        single, found, labels = self.elements(outputs, labels)
        return single.values(found, labels).unflatten(-1, (outputs.shape[-2], -1)).sum(-1)

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Derivative of the total, shape (…, n, K)."""
        single, found, labels = self.elements(outputs, labels)
        return self._of_examples(single.gradient(found, labels), outputs)

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """Products with the second derivatives of all elements."""
        single, found, labels = self.elements(outputs, labels)
        curved = single.curvature(found, labels, dtype)

        def products(tangents: Tensor) -> Tensor:
            return self._of_examples(curved(self._of_elements(tangents).flatten(-3, -2)), tangents)

        return products

    def _of_elements(self, outputs: Tensor) -> Tensor:
        """Outputs (…, n, K) as (…, n, T, k)."""
        sizes = (self.classes, -1) if self.leading else (-1, self.classes)
        found = outputs.unflatten(-1, sizes)
        return found.mT if self.leading else found

    def _of_examples(self, elements: Tensor, like: Tensor) -> Tensor:
        """Elements (…, n T, k) as (…, n, K)."""
        found = elements.unflatten(-2, (like.shape[-2], -1))
        return (found.mT if self.leading else found).flatten(-2)

    def _labels(self, labels: Tensor) -> Tensor:
        if not labels.is_floating_point():
            return labels.flatten()
        return (labels.movedim(1, -1) if self.leading else labels).reshape(-1, self.classes)


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
        """The identity map of tangents."""
        return lambda tangents: tangents

    def factor(self, outputs: Tensor, labels: Tensor) -> DenseFactor:
        """The identity."""
        return DenseFactor(torch.eye(outputs.shape[1]).to(outputs).expand(len(outputs), -1, -1))

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_n Σ_k ż żᵀ (p, d, d), and its diagonal for each example (p, n, d)."""
        return weighted_products(torch.ones_like(outputs), tangents)


def weighted_products(weights: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_n Σ_k w ż żᵀ (p, d, d) and its diagonal for each example (p, n, d), for weights w ≥ 0 (p, n, k)."""
    return _weighted_products(*_in_units(weights, tangents.dtype), tangents)


def _in_units(weights: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights (p, n, k) in `dtype`, over the largest of each point to stay in range, and the largest (p, 1, 1)."""
    units = weights.amax((1, 2), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return (weights / units).to(dtype), units


def _weighted_products(weights: Tensor, units: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_n Σ_k w ż żᵀ (p, d, d) and its diagonal (p, n, d) per example, with w = units (p, 1, 1) · weights (p, n, k)."""
    by_example, by_point = tangents.permute(2, 1, 0), weights.transpose(0, 1)
    traces = units * torch.bmm(by_point, by_example.square()).transpose(0, 1).double()
    roots = weights.sqrt().transpose(1, 2)
    factors = ((tangents * root).flatten(1) for root in roots)
    return units * torch.stack([factor @ factor.T for factor in factors]).double(), traces


def _one_hot(outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, outputs.shape[-1]).to(outputs.dtype)


def likeliest(outputs: Tensor) -> Tensor:
    """Class (n,) with the largest logit, shared by p points with outputs (p, n, k).

    It is taken at the point with the largest finite outputs: at others, all outputs may vanish or not be finite.
    """
    largest = outputs.abs().amax((1, 2))
    return outputs[torch.where(torch.isfinite(largest), largest, -1.0).argmax()].argmax(-1)


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (CrossEntropy(), MeanSquaredError())}


def named(loss: str | Loss) -> Loss:
    """Look up a loss by name; a Loss is returned unchanged. Raises ValueError, with the nearest name, if unknown."""
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        close = difflib.get_close_matches(str(loss), LOSSES, n=1)
        advice = f"did you mean {close[0]}?" if close else f"use one of {', '.join(LOSSES)}"
        raise ValueError(f"loss {loss!r} is unknown: {advice}")
    return LOSSES[loss]
