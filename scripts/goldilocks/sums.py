"""What adds up over examples at several points: parts of the Hessian, the gradient, losses, statistics of logits."""

from collections.abc import Sequence

import torch
from torch import Tensor

from goldilocks import losses

ENTRIES_AT_ONCE = 2**20  # of tangents, so that they stay in the processor's cache


class Sums:
    """Sums over examples at p points on a plane of d directions, each with its own softmax temperature.

    The Cholesky factor L of the raw directions' Gram matrix makes them orthonormal: L⁻¹ ż are the tangents along
    orthonormal ones. `residual` is H′ (p, d, d) over raw directions, for the caller to add to.
    """

    def __init__(self, factor: Tensor, loss: str, temperatures: Sequence[float]):
        p, d = len(temperatures), len(factor)
        self.factor, self.loss, self.count = factor, loss, 0
        self.temperatures = factor.new_tensor(temperatures)[:, None, None]
        self.residual, self.gauss_newton = factor.new_zeros(p, d, d), factor.new_zeros(p, d, d)
        self.gradient, self.traces, self.squares = (factor.new_zeros(p, d) for _ in range(3))
        self.losses, self.variances, self.radial_derivative = (factor.new_zeros(p) for _ in range(3))

    def __len__(self) -> int:
        return len(self.temperatures)

    def adjoints(self, outputs: Tensor, labels: Tensor, points: slice = slice(None)) -> Tensor:
        """Derivatives of the summed losses by the logits (p, n, k)."""
        temperatures = self.temperatures[points]
        return losses.residuals(outputs / temperatures, labels, self.loss) / temperatures

    def add(self, outputs: Tensor, labels: Tensor, tangents: Tensor, points: slice = slice(None)) -> None:
        """Add examples with logits (p, n, k), double, and tangents along orthonormal directions (p, d, n, k).

        The caller adds to `count`. Raises ValueError if a logit or a loss is not finite.
        """
        temperatures = self.temperatures[points]
        cooled = outputs / temperatures
        each = losses.values(cooled, labels, self.loss)
        if not torch.isfinite(cooled).all() or not torch.isfinite(each).all():
            raise ValueError("a logit or a loss is not finite: the radius is too large for this precision, lower it")
        self.losses[points] += each.sum(1)
        self.variances[points] += outputs.var(dim=-1).sum(1)
        adjoints = (self.adjoints(outputs, labels, points)).to(tangents.dtype)
        factor = losses.gauss_newton_factor(cooled, tangents, self.loss)
        factor = factor / temperatures.to(factor.dtype)[..., None]
        flat = factor.flatten(2)
        self.gauss_newton[points] += torch.bmm(flat, flat.transpose(1, 2))
        # Squares of traces leave the range of single precision at large radii.
        traces = factor.square().sum(3).double().cumsum(1)
        self.traces[points] += traces.sum(2)
        self.squares[points] += traces.square().sum(2)
        self.gradient[points] += torch.bmm(tangents.flatten(2), adjoints.flatten(1)[..., None])[..., 0]


def orthonormalised(tangents: Tensor, factor: Tensor) -> Tensor:
    """L⁻¹ ż: tangents (d, …) along raw directions as those along orthonormal ones."""
    flat = tangents.double().flatten(1)
    return torch.linalg.solve_triangular(factor, flat, upper=False).view(tangents.shape).to(tangents.dtype)
