"""Losses in the style of torch: criteria of torch.nn, losses of single outputs, and any function of a batch.

Means follow torch and run over all examples at once, regardless of batch sizes.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional

from goldilocks_zone.models import losses
from goldilocks_zone.models.loss_factors import DenseFactor
from goldilocks_zone.models.losses import Loss, Map, SeparateLoss

Criterion = Callable[[Tensor, Tensor], Tensor]


class OfEachOutput(SeparateLoss):
    """Mean over all outputs of an element-wise loss ℓ(z, y); labels have the outputs' shape (n, …)."""

    classifies = False

    def amount(self, labels: Tensor) -> float:
        """Number of labels, one for each output of each example."""
        return labels.numel()

    def fitted(self, shape: Sequence[int], labels: Tensor | None) -> Loss:
        """Return this loss. Raises ValueError unless each example has one label for each output."""
        if labels is not None and labels.shape[1:].numel() != torch.Size(shape).numel():
            raise ValueError(
                f"labels of shape {tuple(labels.shape[1:])} and outputs of shape {tuple(shape)} were given for each "
                f"example: the loss {self.name} needs one label for each output"
            )
        return self

    @abstractmethod
    def each(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ℓ and its first and second derivatives with respect to z, each in the shape of z."""

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Σ_k ℓ, shape (…, n)."""
        return self.each(outputs, _like(labels, outputs))[0].sum(-1)

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """∂ℓ/∂z, shape (…, n, k)."""
        return self.each(outputs, _like(labels, outputs))[1]

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """Map from tangents ż (…, n, k) to ∂²ℓ/∂z² ż; `dtype` as in `Loss.curvature`."""
        bend = self.each(outputs, _like(labels, outputs))[2].to(dtype or outputs.dtype)
        return lambda tangents: bend * tangents

    def factor(self, outputs: Tensor, labels: Tensor) -> DenseFactor:
        """R = diag √(∂²ℓ/∂z²)."""
        return DenseFactor(torch.diag_embed(self.each(outputs, _like(labels, outputs))[2].sqrt()))

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_n Σ_k ∂²ℓ/∂z² ż żᵀ (p, d, d), and its diagonal for each example (p, n, d)."""
        return losses.weighted_products(self.each(outputs, _like(labels, outputs))[2], tangents)


def _like(labels: Tensor, outputs: Tensor) -> Tensor:
    """Labels (n, …) with the axes of outputs (…, n, k)."""
    return labels.reshape(len(labels), -1).to(outputs)


class SquaredError(OfEachOutput):
    """(z − y)², as nn.MSELoss."""

    name = "squared_error"

    def each(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(z − y)², 2 (z − y) and 2."""
        return (z - y).square(), 2 * (z - y), torch.full_like(z, 2)


class BinaryCrossEntropy(OfEachOutput):
    """−w y log σ(z) − (1 − y) log σ(−z) with pos_weight w (k,), as nn.BCEWithLogitsLoss; labels lie in [0, 1].

    Raises ValueError if a weight is negative.
    """

    name = "binary_cross_entropy"

    def __init__(self, pos_weight: Tensor | Sequence[float] | None = None):
        self.pos_weight = torch.ones(()) if pos_weight is None else torch.as_tensor(pos_weight).detach().flatten()
        if not (self.pos_weight >= 0).all():
            raise ValueError("pos_weight has a negative entry: give weights from zero on")

    def each(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss with its derivatives; the form σ(z) σ(−z) avoids cancellation."""
        mass, positive = y * self.pos_weight.to(z), functional.logsigmoid(z)
        other, p, q = functional.logsigmoid(-z), torch.sigmoid(z), torch.sigmoid(-z)
        return -mass * positive - (1 - y) * other, (1 - y) * p - mass * q, (mass + 1 - y) * p * q


class Huber(OfEachOutput):
    """(z − y)²/2 up to |z − y| = δ and linear beyond, as nn.HuberLoss. Raises ValueError unless δ is positive."""

    name = "huber"

    def __init__(self, delta: float = 1.0):
        if not delta > 0:
            raise ValueError(f"delta {delta} of the Huber loss is not positive: give one that is")
        self.delta = delta

    def each(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss with its derivatives."""
        error = z - y
        slope = error.clamp(-self.delta, self.delta)
        return slope * (error - slope / 2), slope, (error.abs() <= self.delta).to(z)


class Average(SeparateLoss):
    """Loss given as any function (outputs (n, …), labels (n, …)) → mean loss over the examples of a batch.

    Derivatives come from automatic differentiation. `shape` is the shape of one example's outputs.
    """

    classifies = False

    def __init__(self, criterion: Criterion, shape: Sequence[int] | None = None):
        self.criterion, self.shape, self.layout = criterion, shape, shape
        self.name = getattr(criterion, "__name__", type(criterion).__name__)

    def fitted(self, shape: Sequence[int], labels: Tensor | None) -> Loss:
        """Return the loss for outputs of this `shape` per example, flattened to (n, k); labels are not used."""
        return Average(self.criterion, tuple(shape))

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Evaluate the criterion on each example as a batch of one, shape (…, n)."""
        if outputs.ndim > 2:
            return torch.stack([self.values(each, labels) for each in outputs])
        found = outputs if self.shape is None else outputs.unflatten(-1, self.shape)
        return vmap(lambda z, y: self.criterion(z[None], y[None]).reshape(()))(found, labels)

    def refuse_unfit(self, outputs: Tensor, labels: Tensor) -> None:
        """Raise ValueError unless a batch's loss is the mean of its examples' losses and twice differentiable."""
        found = outputs if self.shape is None else outputs.unflatten(-1, self.shape)
        together, apart = self.criterion(found, labels), self.values(outputs, labels).mean()
        if together.numel() != 1 or not torch.allclose(together.double(), apart.double(), rtol=1e-5, atol=1e-7):
            raise ValueError(
                f"the loss {self.name} of a batch is not the mean of its examples' losses: let it average over "
                "examples, or write one that couples them as a models.losses.Loss with a total"
            )
        try:
            self.curvature(outputs, labels)(outputs)
        except RuntimeError as error:
            raise ValueError(
                f"torch cannot differentiate the loss {self.name} twice ({str(error).splitlines()[0]}): write the "
                "loss in operations that have second derivatives"
            ) from error


def loss_of(given: "str | Loss | Criterion") -> Loss:
    """Convert a name, a criterion of torch.nn or any function of outputs and labels to a loss.

    A Loss is returned unchanged. Raises ValueError if the name is unknown, a criterion's reduction is not the mean, or
    `given` is of another type.
    """
    if isinstance(given, str | Loss):
        return losses.named(given)
    if isinstance(given, type) or not callable(given):
        raise ValueError(
            f"a loss cannot be of type {type(given).__name__}: give the name or an instance of a loss, or a function "
            "of outputs and labels"
        )
    if getattr(given, "reduction", "mean") != "mean":
        name = type(given).__name__
        raise ValueError(f"the loss {name} has the reduction {given.reduction!r}: give reduction='mean'")
    kind = type(given) if isinstance(given, nn.Module) else given
    if kind in (nn.CrossEntropyLoss, functional.cross_entropy):
        options = {name: getattr(given, name, default) for name, default in CROSS_ENTROPY.items()}
        return losses.CrossEntropy(**options, class_axis=1)
    if kind in (nn.BCEWithLogitsLoss, functional.binary_cross_entropy_with_logits):
        if getattr(given, "weight", None) is None:
            return BinaryCrossEntropy(getattr(given, "pos_weight", None))
    elif kind in (nn.MSELoss, functional.mse_loss):
        return SquaredError()
    elif kind in (nn.HuberLoss, functional.huber_loss):
        return Huber(getattr(given, "delta", 1.0))
    return Average(given)


CROSS_ENTROPY = {"weight": None, "ignore_index": -100, "label_smoothing": 0.0}
