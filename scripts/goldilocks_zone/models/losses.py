"""Losses of network outputs: values, derivatives with respect to the outputs, and Gauss–Newton factors.

Outputs z are (…, n, k). Labels are (n,), or (…, n) if each of several networks has its own examples. A dot marks
tangents. The total is n times the mean loss or, if the loss does not couple examples, the sum over examples. A new
loss must define `total` alone or, if it does not couple examples, `values` alone; automatic differentiation gives the
derivatives. Logits must be in double precision: where they nearly tie, the error of their softmax is the machine
epsilon times the logits.
"""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from goldilocks_zone.models.loss_factors import DenseFactor, Factor, SoftmaxFactor

Map = Callable[[Tensor], Tensor]
NEGATIVE = 1e-12  # magnitude of negative eigenvalues, relative to the largest, up to which rounding explains them


class Loss(ABC):
    """A loss of a whole batch, which may couple its examples.

    classifies: True if labels are class numbers. If False, the loss defines their meaning; it gets one row of labels
    for each example, or no labels. shift_invariant: True if adding a constant to all outputs of an example does not
    change the loss.
    """

    name: str
    layout: object = None  # axes of the outputs as a fitted loss reads them; must agree for all batches
    couples_examples = True
    classifies = True
    shift_invariant = False

    @abstractmethod
    def total(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Total loss, shape (…): n times the mean loss."""

    def amount(self, labels: Tensor) -> float:
        """Divisor that turns the total loss into the mean: the number of examples, or the sum of their weights."""
        return len(labels)

    def class_counts(self, labels: Tensor, classes: int) -> Tensor | float:
        """Number of labels in each of k = `classes` classes, shape (k,); NaN if labels are not class numbers."""
        return torch.bincount(labels, minlength=classes) if self.classifies else torch.nan

    def fitted(self, shape: Sequence[int], labels: Tensor | None) -> "Loss":
        """Return a loss for networks whose outputs have a given `shape` for one example.

        The loss takes outputs flattened to (n, k), with k the product of the shape. `labels` (n, …) of one batch, if
        not None, may be checked against the shape. Raises ValueError if the loss cannot take outputs of this shape.
        """
        if len(shape) == 1:
            return self
        raise ValueError(
            f"the network gives outputs of shape {tuple(shape)} for one example, and the loss {self.name} needs the "
            "shape (k,): wrap the network in a module that returns only logits (n, k), such as those of one token or "
            "the mean over tokens, or use a loss for several elements of an example, such as "
            "models.losses.CrossEntropy()"
        )

    def elements(self, outputs: Tensor, labels: Tensor, *tangents: Tensor) -> tuple["Loss", *tuple[Tensor, ...]]:
        """Split the examples of a batch into elements, such as tokens: parts that have outputs and a loss of their own.

        Returns the loss of one element, and the outputs (…, m, k), labels (m, …) and tangents (d, k, m) of all m
        elements of the batch. By default, each example is one element, and everything is returned unchanged.
        """
        return self, outputs, labels, *tangents

    def select(self, members: Tensor) -> "Loss":
        """Return the loss of the networks with indices `members` (m',): this loss, if all networks share one loss."""
        return self

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Derivative of the total with respect to the outputs, shape (…, n, k)."""
        return grad(lambda z: self.total(z, labels).sum())(outputs)

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """Map from tangents ż (n, k) to products S ż with the second derivative S of the total at `outputs` (n, k).

        A subclass may store S in the precision `dtype`; this method ignores it.
        """
        gradient = grad(lambda z: self.total(z, labels).sum())
        return lambda tangents: jvp(gradient, (outputs,), (tangents.to(outputs.dtype),))[1].to(tangents.dtype)

    def factor(self, outputs: Tensor, labels: Tensor) -> Factor | None:
        """Factors R with R Rᵀ the second derivative of each example's loss at `outputs` (n, k); None if none exist."""
        return None

    def relative(self, tangents: Tensor, classes: Tensor) -> Tensor:
        """Subtract from each example's `tangents` (d, k, n) the tangent of the logit of its class in `classes` (n,).

        The caller gives the likeliest classes. A loss that is not shift-invariant returns the tangents unchanged.
        """
        if not self.shift_invariant:
            return tangents
        # Differences avoid cancellation where a softmax is saturated.
        return tangents - tangents.gather(1, classes.expand(len(tangents), 1, -1))

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return Gauss–Newton matrices Σ żᵀ S ż (p, d, d) of the total at p points, and their diagonals by example.

        S is the second derivative of the total at `outputs` (p, n, k). All points share the `tangents` ż (d, k, n), to
        which the caller has applied `relative` with the likeliest `classes` (n,). The diagonals (p, n, d) are those of
        the single terms that sum to the matrices, one for each example; they are NaN if examples are coupled.
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
        """Total loss, shape (…): the sum of `values` over examples."""
        return self.values(outputs, labels).sum(-1)

    def factor(self, outputs: Tensor, labels: Tensor) -> Factor | None:
        """Factors R (n, k, k) by eigendecomposition; None if an eigenvalue is more negative than rounding explains."""
        columns = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
        curved = vmap(self.curvature(outputs, labels))(columns[:, None].expand(-1, *outputs.shape))
        values, vectors = torch.linalg.eigh(curved.permute(1, 0, 2))
        if values.min() < -NEGATIVE * values.abs().max():
            return None
        return DenseFactor(vectors * values.clamp_min(0).sqrt()[:, None])


class CrossEntropy(SeparateLoss):
    """Cross-entropy −log p_y in nats, where p is the softmax of the logits, with the options of torch.

    weight (k,): weight of each class. ignore_index: label of examples that are left out. label_smoothing ε: labels y
    become (1 − ε) y + ε/k. Labels are class numbers (n,) or probabilities (n, k). The mean is the sum over examples
    divided by the sum of their labels' weights or, if labels are probabilities, by n.

    If an example has several elements, such as tokens, its loss is their sum. Outputs then have several axes after n,
    and `class_axis`, 1 or −1, is that of the classes. Raises ValueError if a weight is negative or ε is not in [0, 1].
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
            raise ValueError("a class has a negative weight: give weights of zero or more")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing {label_smoothing} is not between 0 and 1: give a number from 0 to 1")

    @property
    def is_plain(self) -> bool:
        """True if there are no class weights, no ignored label and no label smoothing."""
        return self.weight is None and self.ignore_index is None and not self.label_smoothing

    def amount(self, labels: Tensor) -> float:
        """Divisor of the mean: the sum of the weights of all labels not ignored, or n if labels are probabilities."""
        if labels.is_floating_point():
            return len(labels)
        counted = labels if self.ignore_index is None else labels[labels != self.ignore_index]
        return counted.numel() if self.weight is None else float(self.weight.to(labels.device)[counted].sum())

    def class_counts(self, labels: Tensor, classes: int) -> Tensor | float:
        """Number of labels, or sum of their probabilities, in each class, (k,); NaN if some labels are ignored."""
        if labels.is_floating_point():
            return labels.sum(0)
        ignored = self.ignore_index is not None and bool((labels == self.ignore_index).any())
        return torch.nan if ignored else super().class_counts(labels, classes)

    def fitted(self, shape: Sequence[int], labels: Tensor | None) -> Loss:
        """Return this loss or, if `shape` has several axes, the `PerElement` loss that sums it over elements."""
        return self if len(shape) == 1 else PerElement(self, shape, self.class_axis)

    def targets(self, outputs: Tensor, labels: Tensor) -> Tensor | None:
        """Targets t (…, n, k) of the loss −Σ_k t log p; None if labels are class numbers and the loss `is_plain`."""
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
        """Loss −Σ_k t log p of each example with `targets` t, shape (…, n)."""
        targets = self.targets(outputs, labels)
        if targets is not None:
            return -(targets * torch.log_softmax(outputs, -1)).sum(-1)
        chosen = labels.expand(outputs.shape[:-1])[..., None]
        return -torch.log_softmax(outputs, -1).gather(-1, chosen)[..., 0]

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Derivative p Σt − t of the total loss, shape (…, n, k), with the softmax p and `targets` t."""
        targets = self.targets(outputs, labels)
        if targets is None:
            return torch.softmax(outputs, -1) - _one_hot(outputs, labels)
        return torch.softmax(outputs, -1) * targets.sum(-1, keepdim=True) - targets

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """Map from tangents ż to Σt (diag p − ppᵀ) ż with `targets` t; the softmax p is stored in `dtype` if given."""
        p = torch.softmax(outputs, -1).to(dtype or outputs.dtype)
        masses = self._masses(outputs, labels)
        q = p if masses is None else p * masses[..., None].to(p)
        return lambda tangents: q * (tangents - (p * tangents).sum(-1, keepdim=True))

    def factor(self, outputs: Tensor, labels: Tensor) -> Factor:
        """Factors R = (diag √p − p √pᵀ) √Σt of all examples, with the softmax p and `targets` t."""
        found, masses = SoftmaxFactor(torch.softmax(outputs, -1)), self._masses(outputs, labels)
        return found if masses is None else DenseFactor(found.entered() * masses.sqrt()[:, None, None])

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Matrices Σ_n Σt (Σ_k p ż żᵀ − m mᵀ) with m = Σ_k p ż, and diagonals by example, as `Loss` returns them.

        p is the softmax of the outputs, and Σt the sum of an example's `targets`, which is one for plain labels. As ż
        of the likeliest class is zero, the diagonal is at least 1/k of its first term, which bounds cancellation.
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
        """Sum Σt of each example's `targets`, (…, n); None if `targets` returns None or there are no labels."""
        targets = None if labels is None else self.targets(outputs, labels)
        return None if targets is None else targets.sum(-1)


class PerElement(SeparateLoss):
    """Sum of a cross-entropy, `single`, over the T elements of an example, such as tokens or pixels.

    `shape` is that of one example's outputs. Its axis of k classes is the first if `class_axis` is 1, the last if it is
    −1. Methods take outputs flattened to (…, n, K) with K = T k. Labels (n, …) lack the axis of classes unless they
    are probabilities. Raises ValueError for another `class_axis`.
    """

    def __init__(self, single: CrossEntropy, shape: Sequence[int], class_axis: int):
        self.single, self.name, self.shift_invariant = single, single.name, single.shift_invariant
        if class_axis not in (1, -1):
            raise ValueError(
                f"class_axis {class_axis} is neither 1 nor -1: give 1 if classes are the first axis of an output, -1 "
                "if the last"
            )
        self.leading = class_axis == 1
        self.classes = self.layout = shape[0 if self.leading else -1]

    def amount(self, labels: Tensor) -> float:
        """Divisor of the mean, as `CrossEntropy.amount` defines it, with elements in place of examples."""
        return self.single.amount(self._labels(labels))

    def class_counts(self, labels: Tensor, classes: int) -> Tensor | float:
        """Number of elements in each class, or sum of their probabilities, shape (k,), as for `CrossEntropy`."""
        return self.single.class_counts(self._labels(labels), classes)

    def elements(self, outputs: Tensor, labels: Tensor, *tangents: Tensor) -> tuple[CrossEntropy, *tuple[Tensor, ...]]:
        """Return the loss of one element, and outputs (…, n T, k), labels (n T, …) and tangents (d, k, n T) of all."""
        along = (self._of_elements(each.mT).flatten(1, 2).mT for each in tangents)
        return self.single, self._of_elements(outputs).flatten(-3, -2), self._labels(labels), *along

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of each example, shape (…, n): the sum over its elements."""
        single, found, labels = self.elements(outputs, labels)
        return single.values(found, labels).unflatten(-1, (outputs.shape[-2], -1)).sum(-1)

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Derivative of the total, shape (…, n, K)."""
        single, found, labels = self.elements(outputs, labels)
        return self._of_examples(single.gradient(found, labels), outputs)

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """Map from tangents (…, n, K) to their products (…, n, K) with the second derivative of the total."""
        single, found, labels = self.elements(outputs, labels)
        curved = single.curvature(found, labels, dtype)

        def products(tangents: Tensor) -> Tensor:
            return self._of_examples(curved(self._of_elements(tangents).flatten(-3, -2)), tangents)

        return products

    def _of_elements(self, outputs: Tensor) -> Tensor:
        """Reshape outputs (…, n, K) to (…, n, T, k)."""
        sizes = (self.classes, -1) if self.leading else (-1, self.classes)
        found = outputs.unflatten(-1, sizes)
        return found.mT if self.leading else found

    def _of_examples(self, elements: Tensor, like: Tensor) -> Tensor:
        """Reshape arrays of `elements` (…, n T, k) to (…, n, K), with n as in `like` (…, n, K)."""
        found = elements.unflatten(-2, (like.shape[-2], -1))
        return (found.mT if self.leading else found).flatten(-2)

    def _labels(self, labels: Tensor) -> Tensor:
        if not labels.is_floating_point():
            return labels.flatten()
        return (labels.movedim(1, -1) if self.leading else labels).reshape(-1, self.classes)


class MeanSquaredError(SeparateLoss):
    """Half the squared distance, |z − y|²/2, between the outputs z and the one-hot vector y of the label."""

    name = "mean_squared_error"

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss |z − y|²/2 of each example, shape (…, n)."""
        return (outputs - _one_hot(outputs, labels)).square().sum(-1) / 2

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Derivative z − y of the total, shape (…, n, k)."""
        return outputs - _one_hot(outputs, labels)

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """Identity map of tangents, since the second derivative is the identity."""
        return lambda tangents: tangents

    def factor(self, outputs: Tensor, labels: Tensor) -> DenseFactor:
        """Factors R: the identity matrix (k, k) for each example."""
        return DenseFactor(torch.eye(outputs.shape[1]).to(outputs).expand(len(outputs), -1, -1))

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss–Newton matrices Σ_n Σ_k ż żᵀ (p, d, d), and diagonals by example (p, n, d); arguments as in `Loss`."""
        return weighted_products(torch.ones_like(outputs), tangents)


def weighted_products(weights: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices Σ_n Σ_k w ż żᵀ (p, d, d) for `weights` w ≥ 0 (p, n, k), and the diagonals (p, n, d) of Σ_k w ż żᵀ.

    The `tangents` ż are (d, k, n).
    """
    return _weighted_products(*_in_units(weights, tangents.dtype), tangents)


def _in_units(weights: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return `weights` (p, n, k), divided at each point by the largest so that they fit `dtype`, and the divisors."""
    units = weights.amax((1, 2), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return (weights / units).to(dtype), units


def _weighted_products(weights: Tensor, units: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `weighted_products` for w = `units` · `weights`: the divisors (p, 1, 1) and weights from `_in_units`."""
    by_example, by_point = tangents.permute(2, 1, 0), weights.transpose(0, 1)
    traces = units * torch.bmm(by_point, by_example.square()).transpose(0, 1).double()
    roots = weights.sqrt().transpose(1, 2)
    factors = ((tangents * root).flatten(1) for root in roots)
    return units * torch.stack([factor @ factor.T for factor in factors]).double(), traces


def _one_hot(outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, outputs.shape[-1]).to(outputs.dtype)


def likeliest(outputs: Tensor) -> Tensor:
    """Class (n,) with the largest logit of each example, given `outputs` (p, n, k) at p points.

    The classes must be the same at all points. They are read from one point: that whose outputs are finite and reach
    the greatest magnitude. At other points, outputs may all be zero, or some not finite.
    """
    largest = outputs.abs().amax((1, 2))
    return outputs[torch.where(torch.isfinite(largest), largest, -1.0).argmax()].argmax(-1)


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (CrossEntropy(), MeanSquaredError())}


def named(loss: str | Loss) -> Loss:
    """Look up a loss by its name; a `Loss` is returned unchanged. Raises ValueError if the name is unknown."""
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        close = difflib.get_close_matches(str(loss), LOSSES, n=1)
        advice = f"did you mean {close[0]}?" if close else f"use one of {', '.join(LOSSES)}"
        raise ValueError(f"loss {loss!r} is unknown: {advice}")
    return LOSSES[loss]
