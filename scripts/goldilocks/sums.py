"""What adds up over examples at several points: parts of the Hessian, the gradient, losses, statistics of logits."""

from collections.abc import Sequence

import torch
from torch import Tensor

from goldilocks import losses


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

    def add(
        self,
        outputs: Tensor,
        labels: Tensor,
        parts: Sequence[tuple[Tensor, Tensor]],
        points: slice = slice(None),
    ) -> None:
        """Add examples with logits (p, n, k), double, of which each has the same likeliest class at all points.

        Tangents of the logits along orthonormal directions are the sum over `parts`, each of a factor (p,) for every
        point and tangents (d, k, n) that the points share. The caller adds to `count`. Raises ValueError if a logit
        or a loss is not finite.
        """
        temperatures = self.temperatures[points]
        cooled = outputs / temperatures
        each = losses.values(cooled, labels, self.loss)
        if not torch.isfinite(cooled).all() or not torch.isfinite(each).all():
            raise ValueError("a logit or a loss is not finite: the radius is too large for this precision, lower it")
        self.losses[points] += each.sum(1)
        self.variances[points] += outputs.var(dim=-1).sum(1)
        (scales, first), *others = [(factors, losses.relative(outputs[0], each, self.loss)) for factors, each in parts]
        adjoints = self.adjoints(outputs, labels, points).to(first.dtype).transpose(1, 2).flatten(1)
        # One point after the other, in the processor's cache. Scales come last, in double precision: at large radii
        # products leave the range of single precision.
        shares = [((factors / scales).to(each.dtype), each) for factors, each in others]
        squared = (scales / temperatures[:, 0, 0]) ** 2
        for number, point in enumerate(range(len(self))[points]):
            tangents = sum((factors[number] * each for factors, each in shares), first)
            factor = losses.gauss_newton_factor(cooled[number], tangents, self.loss)
            flat = factor.flatten(1)
            self.gauss_newton[point] += squared[number] * (flat @ flat.T).double()
            traces = squared[number] * factor.square().sum(1).double().cumsum(0)
            self.traces[point] += traces.sum(1)
            self.squares[point] += traces.square().sum(1)
            self.gradient[point] += scales[number] * (tangents.flatten(1) @ adjoints[number]).double()


def orthonormalised(tangents: Tensor, factor: Tensor) -> Tensor:
    """L⁻¹ ż: tangents (d, …) along raw directions as those along orthonormal ones."""
    flat = tangents.double().flatten(1)
    return torch.linalg.solve_triangular(factor, flat, upper=False).view(tangents.shape).to(tangents.dtype)
