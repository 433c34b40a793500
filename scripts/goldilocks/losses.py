"""Losses of logits: values, first derivatives, and the factor of their second ones.

Logits are (…, n, k), labels (n,); everything that enters a softmax is in double precision: at near ties the error
of p is eps times the logits.
"""

import torch
from torch import Tensor

LOSSES = ("cross_entropy", "mean_squared_error")


def values(outputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Loss of each example, shape (…, n): −log p_y, or half the squared distance to the one-hot label.

    Raises ValueError if the loss is unknown.
    """
    if loss == "cross_entropy":
        chosen = labels.expand(outputs.shape[:-1])[..., None]
        return -torch.log_softmax(outputs, -1).gather(-1, chosen)[..., 0]
    if loss == "mean_squared_error":
        return (outputs - _targets(outputs, labels)).square().sum(-1) / 2
    raise ValueError(f"loss {loss!r} is unknown: use one of {', '.join(LOSSES)}")


def residuals(outputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Derivative of each example's loss by its outputs, shape (…, n, k): p − y, or z − y for squared error."""
    predicted = torch.softmax(outputs, -1) if loss == "cross_entropy" else outputs
    return predicted - _targets(outputs, labels)


def relative(outputs: Tensor, tangents: Tensor, loss: str) -> Tensor:
    """Logit tangents (d, k, n) from which a softmax's derivatives follow without cancellation where it is saturated.

    Of the logits relative to that of the likeliest class of `outputs` (n, k): the softmax does not tell them from the
    logits themselves. For squared error the tangents as they are.
    """
    if loss == "mean_squared_error":
        return tangents
    return tangents - tangents.gather(1, outputs.argmax(-1).expand(len(tangents), 1, -1))


def gauss_newton_factor(outputs: Tensor, tangents: Tensor, loss: str) -> Tensor:
    """B with G = Σ_n B Bᵀ, from `relative` tangents (d, k, n): √p ⊙ (ż − p·ż), or ż for squared error."""
    if loss == "mean_squared_error":
        return tangents
    p = torch.softmax(outputs, -1).T
    mean = (p.to(tangents.dtype) * tangents).sum(1, keepdim=True)
    return (tangents - mean).mul_(p.sqrt().to(tangents.dtype))


def _targets(outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, outputs.shape[-1]).to(outputs.dtype)
