"""Layers of a chain: their forward passes, tangents and adjoints.

Letters: a layer has the inputs a, the outputs z, the weights W and the bias b; δ is the adjoint of its outputs, the
derivative of a scalar such as the loss with respect to them. The inputs of an activation are called z. A dot marks
tangents, which are derivatives along directions in parameter space. Axes: n examples, d directions, i inputs and o
outputs, or channels.

The method `forward` returns the outputs, and the data that tangents and adjoints need later; these data are the
argument `kept` of other methods. Its argument `theta` (D,) holds the parameters, which layers without parameters
ignore. Tangents are (d, i, n) for vectors and (d, n, i, …) for images. Activations and adjoints are (n, …). Methods
that combine them with tangents or directions take those of vectors as (i, n), as `chains.laid_out` returns them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

ENTRIES_AT_ONCE = 2**17  # entries of a convolution's unfolded inputs in one block, which then fits the CPU cache


class _Directions(Protocol):
    """Interface of `curvature.directions.Directions`: the methods that layers use.

    An object represents d directions in parameter space. Ẇ denotes the entries of one direction that belong to the
    weights of a layer; it has the shape of the weights.
    """

    def __len__(self) -> int: ...
    def weights(self, layer: "Affine") -> Tensor: ...
    def is_sparse(self, layer: "Affine") -> bool: ...
    def sparse_rows(self, layer: "Affine") -> Tensor: ...
    def sparse_columns(self, layer: "Affine") -> Tensor: ...
    def stacked(self, layer: "Affine") -> Tensor: ...
    def rows(self, start: int, stop: int) -> "_Directions": ...


@dataclass(frozen=True)
class Activation:
    """Element-wise activation φ (`function`), with its derivatives φ′ (`slope`) and φ″ (`bend`).

    `bend` is None if φ″ vanishes almost everywhere. `homogeneous` is True if φ(αz) = αφ(z) for all α > 0.
    """

    function: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    bend: Callable[[Tensor], Tensor] | None = None
    homogeneous: bool = False

    def forward(self, theta: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs φ(z) for inputs z = `a`, and z as the data to keep."""
        return self.function(a), a

    def adjoint(self, theta: Tensor, kept: Tensor, delta: Tensor) -> Tensor:
        """Adjoint φ′(z) ⊙ δ of the inputs z = `kept`, from the adjoint δ = `delta` of the outputs."""
        return self.slope(kept) * delta


@dataclass(frozen=True)
class Reshape:
    """Flattening of all axes after the axis of examples."""

    homogeneous = True

    def forward(self, theta: Tensor, a: Tensor) -> tuple[Tensor, torch.Size]:
        """Return the flattened inputs (n, o), and the shape of one example's inputs as the data to keep."""
        return a.flatten(1), a.shape[1:]

    def adjoint(self, theta: Tensor, kept: torch.Size, delta: Tensor) -> Tensor:
        """Adjoint of the inputs: δ = `delta` (n, o), with each example reshaped to the shape `kept`."""
        return delta.reshape(len(delta), *kept)

    def tangent(self, kept: torch.Size, tangents: Tensor) -> Tensor:
        """Tangents (d, o, n) of the outputs: flattened `tangents` (d, n, i, …) of images; unchanged if of vectors."""
        return tangents if len(kept) == 1 else tangents.flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class MaxPool:
    """Max pooling, which selects the largest entry of each window.

    Unless entries tie, small changes of the inputs do not change the selection. Tangents and adjoints therefore pass
    through the selected entries alone.
    """

    options: tuple  # kernel, stride, padding, dilation, ceil_mode of torch
    homogeneous = True

    def forward(self, theta: Tensor, a: Tensor) -> tuple[Tensor, tuple[Tensor, torch.Size]]:
        """Return the maxima, and as the data to keep their indices and the height and width of the inputs."""
        pooled, chosen = functional.max_pool2d_with_indices(a, *self.options)
        return pooled, (chosen.flatten(2), a.shape[2:])

    def adjoint(self, theta: Tensor, kept: tuple[Tensor, torch.Size], delta: Tensor) -> Tensor:
        """Adjoint of the inputs: δ at the selected entries, summed where windows overlap, and zero elsewhere."""
        chosen, size = kept
        spread = delta.new_zeros(*delta.shape[:2], size.numel()).scatter_add_(2, chosen, delta.flatten(2))
        return spread.view(*delta.shape[:2], *size)

    def tangent(self, kept: tuple[Tensor, torch.Size], tangents: Tensor) -> Tensor:
        """Tangents of the outputs: the `tangents` (d, n, o, …) of the inputs, at the selected entries alone."""
        chosen, _ = kept
        flat = tangents.flatten(3)
        height, width = functional.max_pool2d(tangents[0, :1], *self.options).shape[2:]
        return flat.gather(3, chosen.expand(len(flat), *chosen.shape)).view(*flat.shape[:3], height, width)


@dataclass(frozen=True)
class AveragePool:
    """Average pooling, a linear map."""

    options: tuple  # kernel, stride, padding, ceil_mode, count_include_pad, divisor_override of torch
    homogeneous = True

    def forward(self, theta: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return the averages, and the inputs as the data to keep."""
        return functional.avg_pool2d(a, *self.options), a

    def adjoint(self, theta: Tensor, kept: Tensor, delta: Tensor) -> Tensor:
        """Adjoint of the inputs: each entry of δ, over the divisor of its average, added throughout its window."""
        return torch.ops.aten.avg_pool2d_backward(delta, kept, *self.options)

    def tangent(self, kept: Tensor, tangents: Tensor) -> Tensor:
        """Tangents (d, n, o, …) of the outputs: averages of the tangents (d, n, o, …) of the inputs."""
        return functional.avg_pool2d(tangents.flatten(0, 1), *self.options).unflatten(0, tangents.shape[:2])


@dataclass(frozen=True)
class Affine:
    """Layer z = W a + b.

    `weight` and `bias` are the slices of the parameter vector that hold W and b; `bias` is None if there is no b.
    `shape` is the shape of W. Subclasses define the product W a, which may be a convolution, by `apply` and `pull`.
    """

    weight: slice
    bias: slice | None
    shape: tuple[int, ...]
    homogeneous = True

    def weights(self, theta: Tensor) -> Tensor:
        """Weights W (*shape) in one parameter vector `theta` (D,), or (d, *shape) in several (d, D)."""
        return theta[..., self.weight].unflatten(-1, self.shape)

    def forward(self: Any, theta: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs W a + b, and the inputs a as the data to keep."""
        return self.apply(a, self.weights(theta), None if self.bias is None else theta[self.bias]), a

    def adjoint(self: Any, theta: Tensor, kept: Tensor, delta: Tensor) -> Tensor:
        """Adjoint Wᵀδ of the inputs, from the adjoint δ of the outputs; `kept` holds the inputs."""
        return self.pull(self.weights(theta), kept, delta)


@dataclass(frozen=True)
class Dense(Affine):
    """A fully connected layer."""

    def apply(self, a: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """Outputs W a + b (n, o) for inputs `a` (n, i)."""
        return functional.linear(a, weights, bias)

    def pull(self, weights: Tensor, a: Tensor, delta: Tensor) -> Tensor:
        """Adjoint Wᵀδ (n, i) of the inputs, from the adjoint δ = `delta` (n, o) of the outputs; `a` is not used."""
        return delta @ weights

    def turn(self, directions: _Directions, a: Tensor, onto: Tensor | None = None) -> Tensor:
        """Tangents Ẇ a (d, o, n) of the outputs if the weights move along each direction and the inputs are fixed.

        `a` (i, n) are the inputs. If `onto` (d, o, n) is given, the tangents are added to it in place, and it is
        returned.
        """
        d = len(directions)
        if not directions.is_sparse(self):
            weights, a = directions.weights(self), a.expand(d, -1, -1)
            return torch.bmm(weights, a) if onto is None else onto.baddbmm_(weights, a)
        if onto is None:
            onto = a.new_zeros(d, self.shape[0], a.shape[1])
        onto.flatten(0, 1).addmm_(directions.sparse_rows(self), a)
        return onto

    def carry(self, weights: Tensor, tangents: Tensor) -> Tensor:
        """Tangents W ȧ (d, o, n) of the outputs if the inputs move along `tangents` ȧ (d, i, n) and W is fixed."""
        return torch.bmm(weights.expand(len(tangents), -1, -1), tangents)

    def shift(self, biases: Tensor, a: Tensor, weights: Tensor) -> Tensor:
        """Tangents (d, o, n) of the outputs if only the bias moves: `biases` ḃ (d, o), the same for all n examples."""
        return biases[..., None].expand(-1, -1, a.shape[1])

    def weight_gradients(self, delta: Tensor, tangents: Tensor, weights: Tensor) -> Tensor:
        """Gradients Σ_n δ ȧᵀ with respect to W, if the inputs were ȧ instead of a, flattened to (d, o · i).

        `delta` (o, n) is δ, and `tangents` (d, i, n) are the d tangents ȧ. The argument `weights` is not used.
        """
        return torch.bmm(delta.expand(len(tangents), -1, -1), tangents.transpose(1, 2)).flatten(1)

    def pull_directions(self, directions: _Directions, a: Tensor, delta: Tensor) -> Tensor:
        """Adjoints Ẇᵀδ (d, i, n) of the inputs, if the weights were Ẇ instead of W, for each of d directions.

        `delta` (o, n) is δ. The argument `a` is not used.
        """
        if directions.is_sparse(self):
            pulled = delta.new_zeros(len(directions) * self.shape[1], delta.shape[1])
            return pulled.addmm_(directions.sparse_columns(self), delta).unflatten(0, (len(directions), -1))
        return torch.bmm(directions.weights(self).transpose(1, 2), delta.expand(len(directions), -1, -1))

    def extent(self, a: Tensor, weights: Tensor) -> tuple[int, int]:
        """Return two numbers: the positions at which W is applied to one example, here 1, and the inputs i."""
        return 1, self.shape[1]

    def by_example(self, tangents: Tensor) -> Tensor:
        """Rearrange tangents (d, i, n) of the inputs to (n, d, i)."""
        return tangents.permute(2, 0, 1)

    def pull_stacked(self, directions: _Directions, rows: slice, a: Tensor, deltas: Tensor) -> Tensor:
        """Adjoints Ẇᵀδ (n, f · d, i) of the inputs, for each of f adjoints δ per example and each of d directions Ẇ.

        `deltas` (n, f, o) holds the adjoints δ. The d directions are the slice `rows` of all `directions`. The argument
        `a` is not used.
        """
        n, f, o = deltas.shape
        stacked = directions.stacked(self)[:, rows]
        return (deltas.view(n * f, o) @ stacked.flatten(1)).view(n, -1, self.shape[1])


@dataclass(frozen=True)
class Convolution(Affine):
    """A convolution with zero padding and one group; W ∗ a denotes its product without the bias."""

    options: tuple  # stride, padding, dilation of torch

    def apply(self, a: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """Outputs W ∗ a + b (n, o, …) for inputs `a` (n, i, …)."""
        if not self._is_ours(a):
            return functional.conv2d(a, weights, bias, *self.options)
        found = _convolved(a, weights, self.options[1])
        return found if bias is None else found.add_(bias[:, None, None])

    def pull(self, weights: Tensor, a: Tensor, delta: Tensor) -> Tensor:
        """Adjoint (n, i, …) of the inputs `a`: the transposed convolution of δ = `delta` (n, o, …) with W."""
        if self._is_ours(delta):
            return _convolved(delta, weights.transpose(0, 1).flip(2, 3), self._turned)
        return self._backward(delta, a, weights, (True, False, False))

    def turn(self, directions: _Directions, a: Tensor, onto: Tensor | None = None) -> Tensor:
        """Tangents Ẇ ∗ a (d, n, o, …) of the outputs if the weights move along each direction and the inputs are fixed.

        `a` (n, i, …) are the inputs. If `onto` (d, n, o, …) is given, the tangents are added to it in place, and it is
        returned.
        """
        stacked = directions.weights(self).flatten(0, 1)
        turned = self.apply(a, stacked, None).unflatten(1, (len(directions), -1)).transpose(0, 1)
        return turned if onto is None else onto.add_(turned)

    def carry(self, weights: Tensor, tangents: Tensor) -> Tensor:
        """Tangents W ∗ ȧ (d, n, o, …) of the outputs if the inputs move along `tangents` ȧ (d, n, i, …), W fixed."""
        return self.apply(tangents.flatten(0, 1), weights, None).unflatten(0, tangents.shape[:2])

    def shift(self, biases: Tensor, a: Tensor, weights: Tensor) -> Tensor:
        """Tangents (d, n, o, …) of the outputs if only the bias moves: `biases` ḃ (d, o), the same at every position.

        `a` (n, i, …) are the inputs.
        """
        places = self.apply(a[:1], weights, None).shape[2:]
        return biases[:, None, :, None, None].expand(-1, len(a), -1, *places)

    def weight_gradients(self, delta: Tensor, tangents: Tensor, weights: Tensor) -> Tensor:
        """Gradients with respect to W, if the inputs were ȧ instead of a, summed over examples.

        `delta` (n, o, …) is δ, and `tangents` (d, n, i, …) are the d tangents ȧ. The gradients are flattened to (d, o ·
        i · kernel rows · kernel columns).
        """
        if not self._is_ours(delta):
            wanted = False, True, False
            return torch.stack([self._backward(delta, each, weights, wanted) for each in tangents]).flatten(1)
        (o, i, rows, columns), (d, n) = self.shape, tangents.shape[:2]
        windows = _padded(delta, self._turned).unfold(2, rows, 1).unfold(3, columns, 1)
        windows = windows.permute(0, 1, 4, 5, 2, 3).reshape(n, o * rows * columns, -1)
        stacked = tangents.flatten(3).transpose(0, 1).reshape(n, d * i, -1)
        start = delta.new_zeros(windows.shape[1], d * i)
        found = torch.addbmm(start, windows, stacked.transpose(1, 2)).view(o, rows, columns, d, i)
        return found.flip(1, 2).permute(3, 0, 4, 1, 2).flatten(1)

    def pull_directions(self, directions: _Directions, a: Tensor, delta: Tensor) -> Tensor:
        """Adjoints (d, n, i, …) of the inputs `a` (n, i, …), if the weights were Ẇ instead of W, for each direction.

        They are transposed convolutions of δ = `delta` (n, o, …) with each Ẇ. One call computes all of them, because
        the Ẇ of the d directions are stacked along the axis of input channels.
        """
        weights = directions.weights(self).transpose(0, 1).flatten(1, 2)
        stand_in = a.new_empty(1).expand(len(delta), weights.shape[1], *a.shape[2:])
        return self.pull(weights, stand_in, delta).unflatten(1, (len(directions), -1)).transpose(0, 1)

    def extent(self, a: Tensor, weights: Tensor) -> tuple[int, int]:
        """Return two numbers for one example of `a` (n, i, …): the positions at which W is applied, and its entries."""
        return self.apply(a[:1], weights, None).shape[2:].numel(), a[0].numel()

    def by_example(self, tangents: Tensor) -> Tensor:
        """Rearrange tangents (d, n, i, …) of the inputs to (n, d, i · …), with channels and pixels on one axis."""
        return tangents.flatten(2).transpose(0, 1)

    def pull_stacked(self, directions: _Directions, rows: slice, a: Tensor, deltas: Tensor) -> Tensor:
        """Adjoints (n, f · d, i · …) of the inputs `a`, for each of f adjoints δ per example and d directions Ẇ.

        They are the transposed convolutions of every δ with every Ẇ. `deltas` (n, f, o, …) holds the adjoints δ. The d
        directions are the slice `rows` of all `directions`.
        """
        n, f = deltas.shape[:2]
        part = directions.rows(rows.start, rows.stop)
        pulled = self.pull_directions(part, a, deltas.flatten(0, 1)).transpose(0, 1)
        return pulled.reshape(n, f * len(part), -1)

    def _is_ours(self, a: Tensor) -> bool:
        """Return whether `_convolved` can compute the convolution of `a`, and faster than torch: in float64 on a CPU.

        It requires a stride and a dilation of 1, and a padding smaller than the kernel.
        """
        (_, padding, _), kernel = self.options, self.shape[2:]
        plain = self.options == ((1, 1), padding, (1, 1)) and padding[0] < kernel[0] and padding[1] < kernel[1]
        return plain and a.dtype == torch.float64 and a.device.type == "cpu"

    @property
    def _turned(self) -> tuple[int, int]:
        """Padding (rows, columns) with which a convolution with flipped weights computes the transposed convolution.

        This holds for a stride of 1.
        """
        return tuple(size - 1 - padding for size, padding in zip(self.shape[2:], self.options[1]))

    def _backward(self, delta: Tensor, a: Tensor, weights: Tensor, wanted: tuple[bool, bool, bool]) -> Tensor:
        stride, padding, dilation = self.options
        options = (stride, padding, dilation, False, [0, 0], 1)
        return torch.ops.aten.convolution_backward(delta, a, weights, None, *options, wanted)[wanted.index(True)]


def _convolved(a: Tensor, weights: Tensor, padding: tuple[int, int]) -> Tensor:
    """Convolution W ∗ a (n, o, h, w) with stride 1 and zero padding, for inputs a (n, i, …) and weights (o, i, …).

    Torch's convolution takes 10 to 20 times as long in double as in single precision. This one unfolds the inputs along
    their rows, and multiplies them by one kernel row after another in batched matrix products.
    """
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


def _padded(a: Tensor, padding: tuple[int, int]) -> Tensor:
    return functional.pad(a, (padding[1], padding[1], padding[0], padding[0]))


@dataclass(frozen=True)
class Residual:
    """Residual block a + inner(a), where `inner` is a tuple of layers."""

    inner: tuple
    homogeneous = False


@dataclass
class Kept:
    """Record of a `layer` in a forward pass at one point θ.

    forward: data kept by the layer's method `forward`. output: the layer's outputs. delta: the adjoint δ of the
    outputs, or None before a backward pass. inner: the records of the layers in a residual block.
    """

    layer: Any  # of one of the classes above
    forward: Any  # a tensor, or what else the layer keeps
    output: Tensor
    delta: Tensor | None = None
    inner: list["Kept"] = field(default_factory=list)

    def bend(self) -> Tensor | None:
        """Product δ ⊙ φ″(z) for an activation φ with inputs z; None if φ″ vanishes or δ is not known."""
        bend = self.layer.bend
        return None if bend is None or self.delta is None else self.delta * bend(self.forward)


def flat(steps: Iterable) -> Iterator:
    """Yield all of `steps`, the layers of a chain or their `Kept` records, including those in residual blocks.

    A residual block comes before the layers in it.
    """
    for each in steps:
        yield each
        yield from flat(getattr(each, "inner", ()))
