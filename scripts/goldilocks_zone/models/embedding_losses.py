"""Losses of a batch's embeddings: VICReg with its three terms, and InfoNCE.

Outputs are (…, n, 2e + k·r): the embeddings s_x and s_y, e entries each, then k residuals ρ of r entries, such as
Pred(s_x, a) − s_y, one for each code of a latent. Without residuals ρ = s_x − s_y, as of Siamese networks. Labels are
ignored. Totals are n times the mean loss.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from goldilocks_zone.models.losses import Loss


class Terms(NamedTuple):
    """The terms of VICReg, without their weights, each of shape (…)."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


class Embeddings(NamedTuple):
    """Outputs in their parts: the branches s_x and s_y (…, n, e), and residuals (…, n, k, r)."""

    x: Tensor
    y: Tensor
    residuals: Tensor


def split(outputs: Tensor, size: int, codes: int = 1) -> Embeddings:
    """The parts of outputs (…, n, 2e + k·r) with e = size and k = codes. Raises ValueError if widths do not match."""
    extra = outputs.shape[-1] - 2 * size
    if extra < 0 or extra % codes or (codes > 1 and not extra):
        raise ValueError(f"outputs of width {outputs.shape[-1]} are not two embeddings of {size} and {codes} residuals")
    x, y, rest = outputs[..., :size], outputs[..., size : 2 * size], outputs[..., 2 * size :]
    return Embeddings(x, y, rest.unflatten(-1, (codes, extra // codes)) if extra else (x - y)[..., None, :])


def grouped(embeddings: Tensor, group: int | None) -> Tensor:
    """Consecutive groups (…, g, m, e) of m = group examples, or one of all, from embeddings (…, n, e).

    Raises ValueError if the batch is not a multiple of the group, or a group has one example alone.
    """
    size = group or embeddings.shape[-2]
    if size < 2 or embeddings.shape[-2] % size:
        raise ValueError(f"a batch of {embeddings.shape[-2]} examples cannot be cut into groups of {size}")
    return embeddings.unflatten(-2, (-1, size))


@dataclass(frozen=True)
class Vicreg(Loss):
    """L = λ I + μ V + ν C, with the weights λ = invariance, μ = variance and ν = covariance.

    I is the mean over examples of E/e, with E the smallest |ρ|² of the codes, or their soft minimum
    −(1/β) log mean exp(−β|ρ|²) where β = sharpness is given. V is the mean over dimensions and both branches of
    max(0, hinge − s), s = √(v + ε), and C the sum over branches of Σ_{i≠j} Cov_ij²/e, with the unbiased variances v and
    covariances of groups of `group` examples, by default of the whole batch, averaged over groups. At its corner the
    hinge has derivative zero. Terms of weight zero are not computed.
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
    name: ClassVar[str] = "vicreg"
    classifies: ClassVar[bool] = False

    def total(self, outputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """n (λ I + μ V + ν C), shape (…)."""
        weights = self.invariance, self.variance, self.covariance
        means = self._invariance, self._variance, self._covariance
        parts = split(outputs, self.size, self.codes)
        return outputs.shape[-2] * sum(weight * mean(parts) for weight, mean in zip(weights, means) if weight)

    def terms(self, outputs: Tensor) -> Terms:
        """I, V and C, each (…), whatever their weights."""
        parts = split(outputs, self.size, self.codes)
        return Terms(self._invariance(parts), self._variance(parts), self._covariance(parts))

    def energies(self, outputs: Tensor) -> Tensor:
        """Energy E of each example, shape (…, n): the minimum or soft minimum over codes of |ρ|²."""
        return self._energies(split(outputs, self.size, self.codes))

    def _energies(self, parts: Embeddings) -> Tensor:
        squares = parts.residuals.square().sum(-1)
        if self.codes == 1:
            return squares[..., 0]
        if self.sharpness is None:
            return squares.amin(-1)
        return (math.log(self.codes) - torch.logsumexp(-self.sharpness * squares, -1)) / self.sharpness

    def _invariance(self, parts: Embeddings) -> Tensor:
        return self._energies(parts).mean(-1) / self.size

    def _variance(self, parts: Embeddings) -> Tensor:
        variances = (grouped(branch, self.group).var(-2) for branch in (parts.x, parts.y))
        return sum(torch.relu(self.hinge - (v + self.epsilon).sqrt()).mean((-1, -2)) for v in variances) / 2

    def _covariance(self, parts: Embeddings) -> Tensor:
        return sum(self._off_diagonal(grouped(branch, self.group)) for branch in (parts.x, parts.y))

    def _off_diagonal(self, embeddings: Tensor) -> Tensor:
        """Mean over groups of Σ_{i≠j} Cov_ij²/e, from embeddings (…, g, m, e)."""
        centred = embeddings - embeddings.mean(-2, keepdim=True)
        covariance = centred.mT @ centred / (embeddings.shape[-2] - 1)
        others = 1 - torch.eye(self.size, dtype=embeddings.dtype, device=embeddings.device)
        return (covariance * others).square().sum((-1, -2)).mean(-1) / self.size


@dataclass(frozen=True)
class InfoNce(Loss):
    """−log softmax_j(logits_ij) at j = i, averaged over examples i of groups of `group`, by default the whole batch.

    Logits are −|p_i − s_j|²/τ, or p_i · s_j/τ, with the temperature τ, s = s_y and p = ρ + s_y, the prediction, which
    is s_x of Siamese networks. In both directions the loss is the mean of this one and that with i and j exchanged.
    """

    size: int
    temperature: float = 1.0
    similarity: Literal["distance", "dot"] = "distance"
    both_directions: bool = False
    group: int | None = None
    name: ClassVar[str] = "info_nce"
    classifies: ClassVar[bool] = False

    def total(self, outputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """n times the mean, shape (…)."""
        logits = self.logits(outputs)
        losses = self._losses(logits, -1)
        if self.both_directions:
            losses = (losses + self._losses(logits, -2)) / 2
        return losses.sum((-1, -2))

    def logits(self, outputs: Tensor) -> Tensor:
        """Logits (…, g, m, m) of each of g groups: a prediction in each row, an embedding s_y in each column."""
        parts = split(outputs, self.size)
        if parts.residuals.shape[-1] != self.size:
            raise ValueError(f"residuals have {parts.residuals.shape[-1]} entries: InfoNCE needs {self.size}")
        predictions = grouped(parts.residuals[..., 0, :] + parts.y, self.group)
        targets = grouped(parts.y, self.group)
        products = predictions @ targets.mT
        if self.similarity == "dot":
            return products / self.temperature
        squares = predictions.square().sum(-1)[..., :, None] + targets.square().sum(-1)[..., None, :]
        return (2 * products - squares) / self.temperature

    @staticmethod
    def _losses(logits: Tensor, axis: int) -> Tensor:
        return -torch.log_softmax(logits, axis).diagonal(dim1=-2, dim2=-1)
