"""Decompositions of operations of torch into elementary ones, which the tracer of graphs reads from `TABLE`.

Each function takes the arguments of the operation that it replaces. Normalisations are decomposed because their
tangents are then faster to compute, and `aten.copy` because torch does not differentiate it.
"""

import torch
from torch import Tensor

aten = torch.ops.aten


def _normalised(x: Tensor, axes: list[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    scale = torch.rsqrt(centred.square().mean(axes, keepdim=True) + epsilon)
    return centred * scale, mean, scale


def layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Replacement for aten.native_layer_norm: the result, the mean, and the inverse standard deviation."""
    found, mean, scale = _normalised(x, list(range(-len(shape), 0)), epsilon)
    found = found if weight is None else found * weight
    return found if bias is None else found + bias, mean, scale


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, channels: int, size: int, groups: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Replacement for aten.native_group_norm: the result, the mean, and the inverse standard deviation."""
    found, mean, scale = _normalised(x.reshape(n, groups, -1), [2], epsilon)
    found, shape = found.reshape(x.shape), (channels, *(1,) * (x.ndim - 2))
    found = found if weight is None else found * weight.reshape(shape)
    return found if bias is None else found + bias.reshape(shape), mean[:, :, 0], scale[:, :, 0]


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    momentum: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Replacement for aten.native_batch_norm in evaluation mode, where it scales and shifts each channel.

    Returns the result, and two empty tensors in place of batch statistics. In training mode, returns NotImplemented, so
    that torch keeps its own operation.
    """
    if training:
        return NotImplemented
    shape = (-1, *(1,) * (x.ndim - 2))
    scale = torch.rsqrt(variance + epsilon)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return x * scale.reshape(shape) + shift.reshape(shape), x.new_empty(0), x.new_empty(0)


def copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Replacement for aten.copy: a copy of `source`, in the type of `target` and expanded to its shape."""
    return source.to(target.dtype).expand(target.shape).clone()


TABLE = {
    aten.native_layer_norm.default: layer_norm,
    aten.native_group_norm.default: group_norm,
    aten.native_batch_norm.default: batch_norm,
    aten.copy.default: copy,
}
