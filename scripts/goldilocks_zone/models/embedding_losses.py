"""Losses of a batch of embeddings: VICReg with its three terms, InfoNCE, and a cross-entropy.

Outputs are (…, n, 2e + k·r). They hold the embeddings s_x and s_y of e entries each, and then k residuals ρ of r
entries each, one for each code of a latent variable. A residual is, for example, the prediction error Pred(s_x, a) −
s_y. Siamese networks give no residuals; then ρ = s_x − s_y. Only `Classified` uses labels. Totals are n times the mean
loss.
"""

import functools
import math
import operator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from goldilocks_zone.models.losses import CrossEntropy, Loss, SeparateLoss, likeliest

ROWS = 32  # softmaxes of InfoNCE, one per row of logits, that are processed at once


class Terms(NamedTuple):
    """Terms I, V and C of VICReg before weighting, each of shape (…)."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


class Embeddings(NamedTuple):
    """Outputs split into the embeddings x = s_x and y = s_y (…, n, e) and the residuals (…, n, k, r)."""

    x: Tensor
    y: Tensor
    residuals: Tensor


def split(outputs: Tensor, size: int, codes: int = 1) -> Embeddings:
    """Split outputs (…, n, 2e + k·r) into both embeddings and the residuals, with e = `size` and k = `codes`.

    Raises ValueError if the width of the outputs does not fit.
    """
    extra = outputs.shape[-1] - 2 * size
    if extra < 0 or extra % codes or (codes > 1 and not extra):
        raise ValueError(
            f"outputs of {outputs.shape[-1]} numbers per example cannot be cut into two embeddings of {size} and "
            f"equally long residuals (codes: {codes}): give 2 · {size} numbers plus a multiple of {codes}"
        )
    x, y, rest = outputs[..., :size], outputs[..., size : 2 * size], outputs[..., 2 * size :]
    return Embeddings(x, y, rest.unflatten(-1, (codes, extra // codes)) if extra else (x - y)[..., None, :])


def grouped(embeddings: Tensor, group: int | None) -> Tensor:
    """Cut embeddings (…, n, e) into g groups (…, g, m, e) of m = `group` consecutive examples; by default, one group.

    Raises ValueError if n is not a multiple of m, or if a group has only one example.
    """
    size = group or embeddings.shape[-2]
    if size < 2 or embeddings.shape[-2] % size:
        raise ValueError(
            f"{embeddings.shape[-2]} examples cannot be cut into groups of {size}: let groups have two examples or "
            "more, and let their size divide the number of examples"
        )
    return embeddings.unflatten(-2, (-1, size))


@dataclass(frozen=True)
class Vicreg(Loss):
    """VICReg loss λ I + μ V + ν C, with the weights λ = `invariance`, μ = `variance` and ν = `covariance`.

    The invariance term I is the mean of E/e over examples, with e = `size`. The energy E is the minimum of |ρ|² over
    `codes` or, if β = `sharpness` is given, the soft minimum −(1/β) log mean exp(−β|ρ|²). The variance term V is the
    mean of max(0, hinge − s), with s = √(v + ε), over dimensions and both branches s_x and s_y; its derivative at the
    kink is zero. The covariance term C is the sum of Σ_{i≠j} Cov_ij²/e over both branches.

    Variances v and covariances are unbiased estimates from groups of `group` examples, by default the whole batch. V
    and C are averaged over groups. Terms of weight zero are not computed.
    """

    size: int
    invariance: float
    variance: float
    covariance: float
    epsilon: float = 1e-4
    hinge: float = 1.0
    codes: int = 1
    sharpness: float | None = None
    group: int | None = None
    name = "vicreg"
    classifies = False

    def total(self, outputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """Total n (λ I + μ V + ν C), shape (…)."""
        parts, found = split(outputs, self.size, self.codes), []
        if self.invariance:
            found.append(self.invariance * self._invariance(parts))
        covariances = self._covariances(parts) if self.variance or self.covariance else []
        if self.variance:
            found.append(self.variance * self._variance(covariances))
        if self.covariance:
            found.append(self.covariance * self._covariance(covariances))
        return outputs.shape[-2] * functools.reduce(operator.add, found, outputs.new_zeros(outputs.shape[:-2]))

    def terms(self, outputs: Tensor) -> Terms:
        """Terms I, V and C before weighting, shape (…) each; those of weight zero are computed too."""
        parts = split(outputs, self.size, self.codes)
        covariances = self._covariances(parts)
        return Terms(self._invariance(parts), self._variance(covariances), self._covariance(covariances))

    def energies(self, outputs: Tensor) -> Tensor:
        """Energy E of each example, shape (…, n): the minimum or soft minimum of |ρ|² over codes."""
        return self._energies(split(outputs, self.size, self.codes))

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss–Newton matrices Jᵀℓ″J (p, d, d) of the total loss ℓ at p points, and NaN in the shape (p, n, d).

        J are the `tangents`. The NaN stand for diagonals of single examples, which do not exist because examples are
        coupled. With a single code, the matrices are computed from moments of outputs and tangents; with several, by
        automatic differentiation. Arguments are as in `Loss.gauss_newton`.
        """
        if self.codes > 1:
            return super().gauss_newton(outputs, tangents, classes, labels)
        along, (p, n, _) = split(tangents.mT.to(outputs.dtype), self.size), outputs.shape
        total = outputs.new_zeros(p, len(tangents), len(tangents))
        if self.invariance:
            flat = along.residuals.flatten(1)
            total += 2 * self.invariance / self.size * (flat @ flat.T)
        points = split(outputs, self.size)
        for z, j in ((points.x, along.x), (points.y, along.y)):
            z, j = (grouped(each, self.group) for each in (z, j))
            z, j = (each - each.mean(-2, keepdim=True) for each in (z, j))
            factor = n / (self.size * z.shape[1] * (z.shape[2] - 1))
            if self.variance:
                total -= self.variance * factor / 2 * self._along_deviations(z, j)
            if self.covariance:
                total += self.covariance * factor * self._along_covariances(z, j)
        return total, total.new_full((p, n, len(tangents)), torch.nan)

    def _along_deviations(self, z: Tensor, j: Tensor) -> Tensor:
        """Sum of the second derivatives s″ of all deviations s below the hinge, multiplied by m − 1; shape (p, d, d).

        s = √(v + ε) is the deviation of one dimension of the embeddings `z` (p, g, m, e) in one of g groups of m
        examples. The sum runs over groups and dimensions. s″ = Cov(J, J)/s − Cov(z, J)²/s³ is taken along pairs of
        tangents J = `j` (d, g, m, e). Embeddings and tangents must be centred. The caller divides by m − 1.
        """
        m = z.shape[2] - 1
        deviations = (z.square().sum(2) / m + self.epsilon).sqrt()
        active = (deviations < self.hinge) / deviations
        own = torch.einsum("agme,bgme->geab", j, j).flatten(0, 1)
        met = torch.einsum("pgme,agme->pgea", z, j).flatten(1, 2) / m
        found = torch.tensordot(active.flatten(1), own, 1)
        weighted = met * (m * active / deviations.square()).flatten(1)[..., None]
        return found - weighted.mT @ met

    def _along_covariances(self, z: Tensor, j: Tensor) -> Tensor:
        """Sum of the second derivatives (Cov²)″ of all squared covariances, multiplied by m − 1; shape (p, d, d).

        Cov is the covariance of two different dimensions of the embeddings `z` (p, g, m, e) in one of g groups of m
        examples. The sum runs over groups and over ordered pairs of dimensions. (Cov²)″ is taken along pairs of
        tangents J = `j` (d, g, m, e), with Cov″ = 2 Cov(J, J). Embeddings and tangents must be centred. The caller
        divides by m − 1.
        """
        m, others = z.shape[2] - 1, 1 - torch.eye(self.size, dtype=z.dtype, device=z.device)
        flat, found = j.flatten(1), []
        for point in z:
            crossed = torch.einsum("agmi,gmj->agij", j, point)
            crossed = ((crossed + crossed.mT) * others).flatten(1) / m
            covariance = point.mT @ point / m * others
            found.append(2 * m * crossed @ crossed.T + 4 * (j @ covariance).flatten(1) @ flat.T)
        return torch.stack(found)

    def _energies(self, parts: Embeddings) -> Tensor:
        squares = parts.residuals.square().sum(-1)
        if self.codes == 1:
            return squares[..., 0]
        if self.sharpness is None:
            return squares.amin(-1)
        return (math.log(self.codes) - torch.logsumexp(-self.sharpness * squares, -1)) / self.sharpness

    def _invariance(self, parts: Embeddings) -> Tensor:
        return self._energies(parts).mean(-1) / self.size

    def _covariances(self, parts: Embeddings) -> list[Tensor]:
        """Covariance matrices (…, g, e, e) of s_x and of s_y, within each of g groups of examples."""
        branches = [grouped(branch, self.group) for branch in (parts.x, parts.y)]
        centred = [each - each.mean(-2, keepdim=True) for each in branches]
        return [each.mT @ each / (each.shape[-2] - 1) for each in centred]

    def _variance(self, covariances: list[Tensor]) -> Tensor:
        variances = (each.diagonal(dim1=-2, dim2=-1) for each in covariances)
        x, y = (torch.relu(self.hinge - (v + self.epsilon).sqrt()).mean((-1, -2)) for v in variances)
        return (x + y) / 2

    def _covariance(self, covariances: list[Tensor]) -> Tensor:
        others = 1 - torch.eye(self.size, dtype=covariances[0].dtype, device=covariances[0].device)
        x, y = ((each * others).square().sum((-1, -2)).mean(-1) for each in covariances)
        return (x + y) / self.size


@dataclass(frozen=True)
class InfoNce(Loss):
    """InfoNCE loss: mean over examples i of −log softmax_j(logits_ij) at j = i, where j runs over the group of i.

    Groups have `group` examples; by default, the whole batch is one group. Logits compare predictions p = ρ + s_y,
    which are s_x for Siamese networks, with embeddings s = s_y. With τ = `temperature`, logits_ij is −|p_i − s_j|²/τ if
    `similarity` is `distance`, and p_i · s_j/τ if it is `dot`. With `both_directions`, the loss is the average of two:
    this loss, and the loss with the softmax over i instead of j. Methods raise ValueError if residuals and embeddings
    differ in length.
    """

    size: int
    temperature: float = 1.0
    similarity: Literal["distance", "dot"] = "distance"
    both_directions: bool = False
    group: int | None = None
    name = "info_nce"
    classifies = False

    def total(self, outputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """Total loss, shape (…): n times the mean over examples."""
        logits = self.logits(outputs)
        losses = self._losses(logits, -1)
        if self.both_directions:
            losses = (losses + self._losses(logits, -2)) / 2
        return losses.sum((-1, -2))

    def logits(self, outputs: Tensor) -> Tensor:
        """Logits (…, g, m, m) of g groups of m examples: a row for each prediction, a column for each embedding s_y."""
        predictions, targets = self._ends(outputs)
        products = predictions @ targets.mT
        if self.similarity == "dot":
            return products / self.temperature
        squares = predictions.square().sum(-1)[..., :, None] + targets.square().sum(-1)[..., None, :]
        return (2 * products - squares) / self.temperature

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss–Newton matrices Jᵀℓ″J (p, d, d) of the total loss ℓ at p points, and NaN in the shape (p, n, d).

        J are the `tangents`. The NaN stand for diagonals of single examples, which do not exist because examples are
        coupled. Arguments are as in `Loss.gauss_newton`.
        """
        ends, (z_along, s_along), found = self._ends(outputs), self._ends(tangents.mT.to(outputs.dtype)), []
        for z, s, logits in zip(*ends, self.logits(outputs)):
            total = self._one_way(z, s, z_along, s_along, logits)
            if self.both_directions:
                total = (total + self._one_way(s, z, s_along, z_along, logits.mT)) / 2
            found.append((total + total.mT) / 2)
        total = torch.stack(found)
        return total, total.new_full((*outputs.shape[:2], len(tangents)), torch.nan)

    def _one_way(self, z: Tensor, s: Tensor, z_along: Tensor, s_along: Tensor, logits: Tensor) -> Tensor:
        """Gauss–Newton matrix (d, d) at one point, of the loss whose softmax runs over each row of `logits`.

        `logits` are (g, m, m) for g groups of m examples. Row i compares embedding i of `z` (g, m, e) with all
        embeddings of `s` (g, m, e). `z_along` and `s_along` (d, g, m, e) are the tangents of `z` and `s`. The method
        `gauss_newton` symmetrises the matrix.
        """
        p = torch.softmax(logits, -1)
        total = self._bent(p - torch.eye(p.shape[-1], dtype=p.dtype, device=p.device), z_along, s_along)
        # Take few rows at a time, so that the logits' derivatives along all directions stay in a core's cache.
        for start in range(0, p.shape[-2], ROWS):
            rows = slice(start, start + ROWS)
            along = self._along_logits(z[:, rows], s, z_along[:, :, rows], s_along)
            total = total + _softmax_products(p[:, rows], logits[:, rows], along)
        return total

    def _ends(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two sides that the logits compare: predictions p = ρ + s_y, and embeddings s_y.

        Both are (…, g, m, e), in g groups of m examples. Raises ValueError unless residuals have e entries.
        """
        parts = split(outputs, self.size)
        if parts.residuals.shape[-1] != self.size:
            found = f"residuals have {parts.residuals.shape[-1]} entries and embeddings {self.size}"
            raise ValueError(f"{found}, but InfoNCE adds the two: give residuals that are as long as the embeddings")
        return grouped(parts.residuals[..., 0, :] + parts.y, self.group), grouped(parts.y, self.group)

    def _along_logits(self, z: Tensor, s: Tensor, z_along: Tensor, s_along: Tensor) -> Tensor:
        """Derivatives (d, g, r, m), along tangents, of the logits that compare r rows `z` (g, r, e) with `s` (g, m, e).

        `z_along` (d, g, r, e) and `s_along` (d, g, m, e) are the tangents of `z` and `s` along d directions.
        """
        products = z_along @ s.mT + z @ s_along.mT
        if self.similarity == "dot":
            return products / self.temperature
        squares = (z_along * z).sum(-1)[..., :, None] + (s_along * s).sum(-1)[..., None, :]
        return 2 * (products - squares) / self.temperature

    def _bent(self, slopes: Tensor, z: Tensor, s: Tensor) -> Tensor:
        """Part of the Gauss–Newton matrix due to the curvature of the logits: Σ_l ∂L/∂l · l̈ over all logits l, (d, d).

        `slopes` (g, m, m) holds the derivatives ∂L/∂l of the loss L. l̈ (d, d) is the second derivative of a logit
        along the tangents. `z` and `s` (d, g, m, e) are the tangents of the embeddings that rows and columns of the
        logits belong to, not the embeddings themselves. The method `gauss_newton` symmetrises the matrix.
        """
        product = lambda first, second: first.flatten(1) @ second.flatten(1).T  # noqa: E731
        crossed = 2 * product(slopes.mT @ z, s)
        if self.similarity == "dot":
            return crossed / self.temperature
        own = product(slopes.sum(-1)[..., None] * z, z) + product(slopes.sum(-2)[..., None] * s, s)
        return 2 * (crossed - own) / self.temperature

    @staticmethod
    def _losses(logits: Tensor, axis: int) -> Tensor:
        return -torch.log_softmax(logits, axis).diagonal(dim1=-2, dim2=-1)


@dataclass(frozen=True)
class Classified(SeparateLoss):
    """Cross-entropy that takes the first entries of s_x as logits: the first `classes` outputs.

    Labels are class numbers (n,). The loss does not couple examples.
    """

    classes: int
    name = "classified"

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss −log p_y of each example, shape (…, n)."""
        return CrossEntropy().values(outputs[..., : self.classes], labels)

    def gauss_newton(self, outputs: Tensor, tangents: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss–Newton matrices (p, d, d), and the diagonal of each example's term (p, n, d); arguments as in `Loss`.

        Only the outputs that are logits, and their tangents, are used. The argument `classes` is ignored.
        """
        logits, loss = outputs[..., : self.classes], CrossEntropy()
        first = likeliest(logits)
        return loss.gauss_newton(logits, loss.relative(tangents[:, : self.classes], first), first, labels)


def _softmax_products(p: Tensor, logits: Tensor, along: Tensor) -> Tensor:
    """Covariance matrix (d, d) of the logits' derivatives l̇ under each softmax, summed over softmaxes.

    For one softmax it is Σ_j p_j l̇_j l̇_jᵀ − μ μᵀ, with μ = Σ_j p_j l̇_j. `p` (g, r, m) holds g · r softmaxes of
    `logits` over the last axis j. `along` (d, g, r, m) holds the derivatives l̇ along d directions.
    """
    # Subtracting the likeliest logit's derivative avoids cancellation where a softmax is saturated.
    likeliest = logits.argmax(-1, keepdim=True).expand(len(along), -1, -1, 1)
    along = along - along.gather(-1, likeliest)
    weighted = p * along
    means = weighted.sum(-1).flatten(1)
    return weighted.flatten(1) @ along.flatten(1).T - means @ means.T
