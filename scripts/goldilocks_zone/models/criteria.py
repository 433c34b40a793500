"""Losses made from criteria of torch.nn, and from any function of outputs and labels that is a mean over examples.

Means are taken as torch does within one batch, but over all batches together, so that batch sizes do not matter.
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
    """Mean of an element-wise loss ℓ(z, y) over all outputs z of all examples; labels (n, …) hold one y for each z.

    Subclasses define ℓ by the method `each`.
    """

    classifies = False

    def amount(self, labels: Tensor) -> float:
        """Divisor that turns the sum of ℓ into the mean: the number of labels, which equals the number of outputs."""
        return labels.numel()

    def fitted(self, shape: Sequence[int], labels: Tensor | None) -> Loss:
        """Return this loss, after a check that each example has as many labels as outputs of the given `shape`.

        Raises ValueError if the numbers differ.
        """
        if labels is not None and labels.shape[1:].numel() != torch.Size(shape).numel():
            raise ValueError(
                f"labels of shape {tuple(labels.shape[1:])} and outputs of shape {tuple(shape)} were given for each "
                f"example: the loss {self.name} needs one label for each output"
            )
        return self

    @abstractmethod
    def each(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ℓ(z, y) and its first and second derivatives with respect to the outputs z, each in the shape of z."""

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Sum Σ_k ℓ over the k outputs of each example, shape (…, n)."""
        return self.each(outputs, _like(labels, outputs))[0].sum(-1)

    def gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Derivative ∂ℓ/∂z with respect to each output z, shape (…, n, k)."""
        return self.each(outputs, _like(labels, outputs))[1]

    def curvature(self, outputs: Tensor, labels: Tensor, dtype: torch.dtype | None = None) -> Map:
        """Map from tangents ż (…, n, k) to the products ∂²ℓ/∂z² ż; ∂²ℓ/∂z² is stored in `dtype` if given."""
        bend = self.each(outputs, _like(labels, outputs))[2].to(dtype or outputs.dtype)
        return lambda tangents: bend * tangents

    def factor(self, outputs: Tensor, labels: Tensor) -> DenseFactor:
        """Factors R = diag √(∂²ℓ/∂z²), (n, k, k), with R Rᵀ = diag ∂²ℓ/∂z² for each example; ℓ must be convex."""
        return DenseFactor(torch.diag_embed(self.each(outputs, _like(labels, outputs))[2].sqrt()))

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss–Newton matrices Σ_n Σ_k ∂²ℓ/∂z² ż żᵀ (p, d, d), and the diagonal of each example's term (p, n, d).

        Arguments are as in `Loss.gauss_newton`.
        """
        return losses.weighted_products(self.each(outputs, _like(labels, outputs))[2], tangents)


def _like(labels: Tensor, outputs: Tensor) -> Tensor:
    """Labels (n, …) flattened to (n, k), in the precision and on the device of the outputs (…, n, k)."""
    return labels.reshape(len(labels), -1).to(outputs)


class SquaredError(OfEachOutput):
    """Squared error ℓ = (z − y)², as in nn.MSELoss."""

    name = "squared_error"

    def each(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss ℓ = (z − y)² and its first and second derivatives, 2 (z − y) and 2."""
        return (z - y).square(), 2 * (z - y), torch.full_like(z, 2)


class BinaryCrossEntropy(OfEachOutput):
    """Loss ℓ = −w y log σ(z) − (1 − y) log σ(−z) with `pos_weight` w (k,), as in nn.BCEWithLogitsLoss.

    σ is the logistic function. Labels y lie in [0, 1]. Raises ValueError if a weight is negative.
    """

    name = "binary_cross_entropy"

    def __init__(self, pos_weight: Tensor | Sequence[float] | None = None):
        self.pos_weight = torch.ones(()) if pos_weight is None else torch.as_tensor(pos_weight).detach().flatten()
        if not (self.pos_weight >= 0).all():
            raise ValueError("pos_weight has a negative entry: give weights of zero or more")

    def each(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss ℓ and its first and second derivatives.

        The second derivative contains σ(z) σ(−z) instead of σ(z) (1 − σ(z)), which would suffer from cancellation.
        """
        mass, positive = y * self.pos_weight.to(z), functional.logsigmoid(z)
        other, p, q = functional.logsigmoid(-z), torch.sigmoid(z), torch.sigmoid(-z)
        return -mass * positive - (1 - y) * other, (1 - y) * p - mass * q, (mass + 1 - y) * p * q


class Huber(OfEachOutput):
    """Loss ℓ = (z − y)²/2 where |z − y| ≤ δ, and δ (|z − y| − δ/2) elsewhere, as in nn.HuberLoss, with δ = `delta`.

    Raises ValueError unless δ is positive.
    """

    name = "huber"

    def __init__(self, delta: float = 1.0):
        if not delta > 0:
            raise ValueError(f"delta {delta} of the Huber loss is not positive: give a number above zero")
        self.delta = delta

    def each(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss ℓ and its first and second derivatives."""
        error = z - y
        slope = error.clamp(-self.delta, self.delta)
        return slope * (error - slope / 2), slope, (error.abs() <= self.delta).to(z)


class Average(SeparateLoss):
    """Loss defined by any function `criterion`: (outputs (n, …), labels (n, …)) → mean loss over the n examples.

    Derivatives come from automatic differentiation. The methods of this class take the outputs of one example as a
    vector (k,). Before `criterion` is called, each vector is reshaped to `shape`, or left as it is if `shape` is None.
    """

    classifies = False

    def __init__(self, criterion: Criterion, shape: Sequence[int] | None = None):
        self.criterion, self.shape, self.layout = criterion, shape, shape
        self.name = getattr(criterion, "__name__", type(criterion).__name__)

    def fitted(self, shape: Sequence[int], labels: Tensor | None) -> Loss:
        """Return a loss of the same criterion that reshapes each example's outputs to `shape`; ignores `labels`."""
        return Average(self.criterion, tuple(shape))

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of each example, shape (…, n): the value of the criterion for a batch that holds this example alone."""
        if outputs.ndim > 2:
            return torch.stack([self.values(each, labels) for each in outputs])
        found = outputs if self.shape is None else outputs.unflatten(-1, self.shape)
        return vmap(lambda z, y: self.criterion(z[None], y[None]).reshape(()))(found, labels)

    def refuse_unfit(self, outputs: Tensor, labels: Tensor) -> None:
        """Raise ValueError unless the loss of this batch is the mean over its examples and is differentiable twice.

        `outputs` are (n, k).
        """
        found = outputs if self.shape is None else outputs.unflatten(-1, self.shape)
        together, apart = self.criterion(found, labels), self.values(outputs, labels).mean()
        if together.numel() != 1 or not torch.allclose(together.double(), apart.double(), rtol=1e-5, atol=1e-7):
            raise ValueError(
                f"the loss {self.name} of a batch is not the mean of its examples' losses: let it average over "
                "examples, or write a loss that couples them as a subclass of models.losses.Loss with a method total"
            )
        try:
            self.curvature(outputs, labels)(outputs)
        except RuntimeError as error:
            raise ValueError(
                f"torch cannot differentiate the loss {self.name} twice ({str(error).splitlines()[0]}): write the "
                "loss in operations that have second derivatives"
            ) from error


def loss_of(given: "str | Loss | Criterion") -> Loss:
    """Convert the name of a loss, a criterion of torch.nn or any function of outputs and labels to a `Loss`.

    A `Loss` is returned unchanged. Raises ValueError if the name is unknown, if a criterion has another reduction than
    the mean, or if `given` is of another type.
    """
    if isinstance(given, str | Loss):
        return losses.named(given)
    if isinstance(given, type) or not callable(given):
        raise ValueError(
            f"a loss cannot be of type {type(given).__name__}: give the name or an instance of a loss, or a function "
            "of outputs and labels"
        )
    if (reduction := getattr(given, "reduction", "mean")) != "mean":
        name = type(given).__name__
        raise ValueError(f"the loss {name} has the reduction {reduction!r}: give reduction='mean'")
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
