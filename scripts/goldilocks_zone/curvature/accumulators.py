"""Accumulators of sums over examples at several points: Hessian parts, gradients, losses and statistics of logits.

A point is a parameter vector on a ray, together with a softmax temperature. At each point the Hessian H = G + H′ is the
sum of its Gauss–Newton part G and of the part H′ with the second derivatives of the logits. Raw directions are those
given for a plane; orthonormal directions are obtained from them through the Cholesky factor of their Gram matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from goldilocks_zone.models import losses


@dataclass
class _Moments:
    """Sums whose shapes depend on the number k of classes, for p points and d directions.

    predicted (p, k) and products (p, k, k): softmax outputs p, and products p pᵀ. tangents (p, d, k): derivatives of
    the logits along the directions. members (p, k): numbers of examples in each class.
    """

    predicted: Tensor
    products: Tensor
    tangents: Tensor
    members: Tensor


class Sums:
    """Sums over examples at p points: losses, their derivatives on a plane through each point, and logit statistics.

    `temperatures` has one temperature for each point. The planes of all points have the same d directions, and `factor`
    is the lower Cholesky factor L (d, d) of the Gram matrix of the raw directions. Losses and derivatives are those of
    the total loss, not of the mean.

    `residual` (p, d, d) is H′ along raw directions. The other derivatives are along orthonormal directions. Of these,
    `gauss_newton` (p, d, d) is G, and `gradient` (p, d) is the gradient. `traces` (p, d) sums over examples the trace
    of an example's G on the first 1 … d directions, and `squares` (p, d) sums the square of this trace.

    `add` adds examples to all sums but four: the caller adds to `residual` and `radial_derivative` (p,), and `counted`
    adds to `count` and `amount`. If `refuse_overflow` is false, the sums at a point whose logits overflow are not
    finite; other points are unaffected.
    """

    def __init__(self, factor: Tensor, loss: losses.Loss, temperatures: Sequence[float], refuse_overflow: bool = True):
        p, d = len(temperatures), len(factor)
        self.factor, self.loss, self.refuse_overflow = factor, loss, refuse_overflow
        self.count, self.amount = 0, 0.0
        self.temperatures = factor.new_tensor(temperatures)[:, None, None]
        self.residual, self.gauss_newton = factor.new_zeros(p, d, d), factor.new_zeros(p, d, d)
        self.gradient, self.traces, self.squares = (factor.new_zeros(p, d) for _ in range(3))
        self.losses, self.variances, self.radial_derivative = (factor.new_zeros(p) for _ in range(3))
        self.entropies, self.zeros, self._elements, self._tangent_squares = (factor.new_zeros(p) for _ in range(4))
        self._moments: _Moments | None = None  # None until the number of classes is known

    def __len__(self) -> int:
        return len(self.temperatures)

    def residuals(self, outputs: Tensor, labels: Tensor, points: slice | list[int] = slice(None)) -> Tensor:
        """Derivatives (p, n, k) of the total loss with respect to logits / temperature, at p points.

        `outputs` (p, n, k) are the logits at the p points that the indices `points` select. Despite the name, the
        derivatives are not the sums `residual`, which are H′.
        """
        return self.loss.gradient(outputs / self.temperatures[points], labels)

    def adjoints(self, outputs: Tensor, labels: Tensor, points: slice = slice(None)) -> Tensor:
        """Derivatives (p, n, k) of the total loss with respect to the logits, at p points.

        `outputs` (p, n, k) are the logits at the p points that the indices `points` select.
        """
        return self.residuals(outputs, labels, points) / self.temperatures[points]

    def add(
        self,
        outputs: Tensor,
        labels: Tensor,
        parts: list,
        points: slice | list[int] = slice(None),
        alike: tuple | None = None,
    ) -> None:
        """Add examples to the sums at some `points`, given their logits `outputs` (p, n, k) in double precision.

        `parts` gives the derivatives of the logits along orthonormal directions. It is a list of pairs of factors (p,)
        and tangents (d, k, n); the derivatives at a point are Σ factor · tangents over the pairs. `alike` is a grouping
        of the points, as returned by `homogeneous_sweep.same`. Points of a group must have equal logits / temperature,
        and the ratio of their factors must be the same in all pairs.

        The likeliest class must be the same at all points, for each example or, if an example has several elements such
        as tokens, for each element. After adding examples at all points, call `counted` once. Raises ValueError if a
        logit or a loss is not finite and `refuse_overflow` is true.
        """
        firsts, numbers, places = map(self._places, (*(alike or (slice(None), slice(None))), points))
        temperatures = self.temperatures[places]
        cooled = outputs[firsts] / temperatures[firsts]
        totals = self.loss.total(cooled, labels)
        if self.refuse_overflow and not (torch.isfinite(outputs).all() and torch.isfinite(totals).all()):
            raise ValueError(
                "a logit or a loss is not finite, probably because the parameters are too large for this precision: "
                "use smaller radii or scales, or double precision"
            )
        self.losses[places] += totals[numbers]
        examples = outputs.shape[1]
        loss, outputs, labels, *tangents = self.loss.elements(outputs, labels, *(each for _, each in parts))
        parts = [(factors, each) for (factors, _), each in zip(parts, tangents)]
        cooled = outputs[firsts] / temperatures[firsts]
        self._elements[places] += outputs.shape[1]
        deviations, k = outputs - outputs.mean(-1, keepdim=True), outputs.shape[-1]
        self.variances[places] += deviations.square().sum((1, 2)) / (k - 1)
        self.zeros[places] += (outputs == 0).sum((1, 2)) / k
        self._add_moments(cooled, labels, parts, places, numbers)
        classes = losses.likeliest(outputs)
        (scales, first), *others = [(factors, loss.relative(each, classes)) for factors, each in parts]
        # Multiply by the scales last, in double precision: products at large radii overflow single precision.
        shares = [((factors / scales)[firsts].to(each.dtype), each) for factors, each in others]
        heights = scales / temperatures[:, 0, 0]
        # Process only a few points with the same tangents at a time, so that the products stay in the CPU cache.
        step = 1 if shares else k
        found = []
        for start, some in zip(range(0, len(cooled), step), cooled.split(step)):
            tangents = sum((factors[start] * each for factors, each in shares), first)
            product, traces = loss.gauss_newton(some, tangents, classes, labels)
            traces = traces.unflatten(1, (examples, -1)).sum(2).cumsum(2)
            residuals = loss.gradient(some, labels).transpose(1, 2).flatten(1)
            gradient = (residuals.to(tangents.dtype) @ tangents.flatten(1).T).double()
            found.append((product, gradient, traces.sum(1), traces.square().sum(1)))
        product, gradient, traces, squares = (torch.cat(each)[numbers] for each in zip(*found))
        heights = heights[:, None]
        self.gauss_newton[places] += heights[..., None] ** 2 * product
        self.gradient[places] += heights * gradient
        self.traces[places] += heights**2 * traces
        self.squares[places] += heights**4 * squares

    def _places(self, given: slice | list[int]) -> slice | Tensor:
        """Convert a list of point indices to a tensor on the device of the sums; return a slice unchanged.

        Indexing with a list would copy it to the device each time.
        """
        return given if isinstance(given, slice) else torch.tensor(given, device=self.factor.device)

    def _add_moments(
        self, cooled: Tensor, labels: Tensor, parts: list, points: slice | Tensor, numbers: slice | Tensor
    ) -> None:
        """Add entropies, class counts, and first and second moments of softmax outputs and tangents to their sums.

        `means` computes statistics from these sums. `cooled` (…, n, k) holds logits / temperature; its row `numbers[i]`
        belongs to the i-th of the `points`. `parts` are as in `add`.
        """
        classes = cooled.shape[-1]
        sums = self._moments
        if sums is None:
            shapes = (classes,), (classes, classes), (len(self.factor), classes), (classes,)
            sums = self._moments = _Moments(*(self.factor.new_zeros(len(self), *shape) for shape in shapes))
        logarithms = torch.log_softmax(cooled, -1)
        predicted = logarithms.exp()
        # Clamp log p, so that p log p is zero if p underflows.
        weighted = predicted * logarithms.clamp_min(torch.finfo(logarithms.dtype).min)
        self.entropies[points] -= weighted.sum((1, 2))[numbers]
        sums.predicted[points] += predicted.sum(1)[numbers]
        sums.products[points] += (predicted.transpose(1, 2) @ predicted)[numbers]
        sums.members[points] += self.loss.class_counts(labels, classes)
        for number, (factors, each) in enumerate(parts):
            sums.tangents[points] += factors[:, None, None] * each.sum(2, dtype=torch.float64)
            self._tangent_squares[points] += (factors * torch.linalg.vector_norm(each, dtype=torch.float64)) ** 2
            for others, other in parts[:number]:
                self._tangent_squares[points] += 2 * factors * others * (each.double() * other).sum()

    def counted(self, labels: Tensor) -> None:
        """Add the number of examples with these `labels` to `count`, and their total weight to `amount`."""
        self.count += len(labels)
        self.amount += self.loss.amount(labels)

    def means(self) -> dict[str, Tensor]:
        """Dictionary from the name of each scalar field of `dispatch.PlaneCurvature` to its values (p,) at all points.

        They are means and statistics over the examples added so far.
        """
        sums = self._moments
        assert sums is not None, "no examples were added"
        n, (d, classes) = self._elements, sums.tangents.shape[1:]
        # Off-diagonal entries are −⟨p_k p_l⟩. Minus the sum of a row of them is the diagonal entry ⟨p_k (1 − p_k)⟩,
        # without cancellation for p near 1.
        crossed = sums.products - torch.diag_embed(sums.products.diagonal(dim1=1, dim2=2))
        spread = torch.diag_embed(crossed.sum(2)) - crossed
        # Divide by the largest entry first, as its square may underflow.
        spread = spread / spread.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(spread.dtype).tiny)
        norms = spread.flatten(1).norm(dim=1)
        ratios = spread.diagonal(dim1=1, dim2=2).sum(1) / norms
        means = (sums.tangents / n[:, None, None]).square().sum((1, 2)) / (d * classes)
        # The spread is unknown for a single example; avoid division by zero.
        spreads = (self._tangent_squares / (n * d * classes) - means).clamp_min(0) * (n / (n - 1).clamp_min(1))
        return {
            "loss": self.losses / self.amount,
            "logits_std": (self.variances / n).sqrt(),
            "radial_derivative": self.radial_derivative / self.amount,
            "zero_logits": self.zeros / n,
            "entropy": self.entropies / n,
            "prior_mismatch": (sums.members - sums.predicted).norm(dim=1) / n,
            "softmax_ratio": torch.where(norms > 0, ratios, torch.ones_like(ratios)),
            "class_gradient": (means - spreads / n).clamp_min(0).sqrt(),
            "example_gradient": spreads.sqrt(),
        }


def orthonormalised(tangents: Tensor, factor: Tensor) -> Tensor:
    """Convert `tangents` ż (d, …) along raw directions to tangents L⁻¹ ż (d, …) along orthonormal directions.

    `factor` is the lower Cholesky factor L (d, d) of the Gram matrix of the raw directions. L⁻¹ acts on the first axis.
    """
    flat = tangents.double().flatten(1)
    return torch.linalg.solve_triangular(factor, flat, upper=False).view(tangents.shape).to(tangents.dtype)
