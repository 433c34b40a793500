"""Convolutions of stride 1 in double precision, for which PyTorch has no fast code on processors.

There it takes 10 to 20 times as long as in single precision. Here inputs are laid out by shifts along their rows
and meet one row of the kernel after another in batched matrix products.
"""

import torch
from torch import Tensor
from torch.nn import functional

ENTRIES_AT_ONCE = 2**17  # of the inputs laid out by shifts, so that they stay in the processor's cache


def convolved(a: Tensor, weights: Tensor, padding: tuple[int, int]) -> Tensor:
    """W ∗ a, shape (n, o, h, w), of inputs (n, i, …) with weights (o, i, k, k) and zeros around the inputs."""
    o, i, rows, columns = weights.shape
    n, _, height, width = a.shape
    height, width = height + 2 * padding[0] - rows + 1, width + 2 * padding[1] - columns + 1
    by_row = weights.permute(2, 0, 1, 3).flatten(2)
    result = a.new_empty(n, o, height * width)
    step = max(1, ENTRIES_AT_ONCE // (i * columns * (height + rows - 1) * width))
    for start in range(0, n, step):
        part = result[start : start + step]
        shifted = _padded(a[start : start + step], padding).unfold(3, columns, 1)
        shifted = shifted.permute(0, 1, 4, 2, 3).reshape(len(part), i * columns, -1)
        for row, each in enumerate(by_row):
            window = shifted[..., row * width : row * width + height * width]
            torch.baddbmm(part, each.expand(len(part), -1, -1), window, beta=min(row, 1), out=part)
    return result.view(n, o, height, width)


def pulled(delta: Tensor, weights: Tensor, padding: tuple[int, int]) -> Tensor:
    """The transposed convolution of adjoints (n, o, h, w), shape (n, i, …)."""
    return convolved(delta, weights.transpose(0, 1).flip(2, 3), _turned(weights.shape, padding))


def weight_gradients(delta: Tensor, tangents: Tensor, shape: tuple[int, ...], padding: tuple[int, int]) -> Tensor:
    """Gradients of W for adjoints (n, o, h, w) with each of the tangents (d, n, i, …) as inputs, shape (d, *shape)."""
    o, i, rows, columns = shape
    d, n = tangents.shape[:2]
    windows = _padded(delta, _turned(shape, padding)).unfold(2, rows, 1).unfold(3, columns, 1)
    windows = windows.permute(0, 1, 4, 5, 2, 3).reshape(n, o * rows * columns, -1)
    stacked = tangents.flatten(3).transpose(0, 1).reshape(n, d * i, -1)
    start = delta.new_zeros(windows.shape[1], d * i)
    found = torch.addbmm(start, windows, stacked.transpose(1, 2)).view(o, rows, columns, d, i)
    return found.flip(1, 2).permute(3, 0, 4, 1, 2)


def _turned(shape: tuple[int, ...], padding: tuple[int, int]) -> tuple[int, int]:
    """Padding of the transposed convolution."""
    return shape[2] - 1 - padding[0], shape[3] - 1 - padding[1]


def _padded(a: Tensor, padding: tuple[int, int]) -> Tensor:
    return functional.pad(a, (padding[1], padding[1], padding[0], padding[0]))
