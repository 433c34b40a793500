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


def likeliest(outputs: Tensor) -> Tensor:
    """The class (n,) with the largest logit, of outputs (p, n, k) at p points where it is the same.

    Of the point with the largest finite logits: at others they may all have vanished, or not be finite.
    """
    largest = outputs.abs().amax((1, 2))
    return outputs[torch.where(torch.isfinite(largest), largest, -1.0).argmax()].argmax(-1)


def relative(tangents: Tensor, classes: Tensor, loss: str) -> Tensor:
    """Logit tangents (d, k, n) from which a softmax's derivatives follow without cancellation where it is saturated.

    Of the logits relative to that of the likeliest, `classes` (n,): the softmax does not tell them from the
    logits themselves. For squared error the tangents as they are.
    """
    if loss == "mean_squared_error":
        return tangents
    return tangents - tangents.gather(1, classes.expand(len(tangents), 1, -1))


def gauss_newton(outputs: Tensor, tangents: Tensor, classes: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """G over examples (p, d, d), and its diagonal for each of them (p, n, d), at p points that share their tangents.

    From `outputs` (p, n, k) and tangents ż (d, k, n) `relative` to their likeliest `classes` (n,):
    Σ_n (Σ_k p ż żᵀ − m mᵀ) with the softmax's p and m = Σ_k p ż. As ż vanishes for the likeliest class, whose p is 1/k
    at least, the difference is 1/k of what it is taken from at least. For squared error Σ_n Σ_k ż żᵀ.
    """
    weights, units = torch.ones_like(outputs), outputs.new_ones(len(outputs), 1, 1)
    if loss == "cross_entropy":
        weights = torch.softmax(outputs, -1)
        weights[:, torch.arange(len(classes)), classes] = 0
        # What the softmax leaves to other classes may lie below the range of single precision.
        units = weights.amax((1, 2), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        weights = weights / units
    by_example, weights = tangents.permute(2, 1, 0), weights.to(tangents.dtype)
    by_point = weights.transpose(0, 1)
    traces = units * torch.bmm(by_point, by_example.square()).transpose(0, 1).double()
    roots = weights.sqrt().transpose(1, 2)
    factors = ((tangents * root).flatten(1) for root in roots)
    products = units * torch.stack([factor @ factor.T for factor in factors]).double()
    if loss == "cross_entropy":
        means = torch.bmm(by_point, by_example).transpose(0, 1)
        traces -= (units * means.double()).square()
        products -= units**2 * torch.bmm(means.transpose(1, 2), means).double()
    return products, traces


def _targets(outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, outputs.shape[-1]).to(outputs.dtype)
