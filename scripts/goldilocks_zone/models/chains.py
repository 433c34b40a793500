"""Networks as chains of layers, with the derivatives from which projected Hessians are built.

A chain runs forward once, carries one adjoint back, and pushes directions forward as tangents. One letter per
axis: n examples, d directions, o outputs, i inputs of a layer. Activations and adjoints are (n, …). Tangents, None
where they vanish, and what meets them put the entries of a vector before its examples, so that no product with
weights leaves them to be rearranged: (d, o, n) and `laid_out` activations (o, n); images stay (d, n, o, …) and
(n, o, …). Points and adjoints are in double precision, tangents in the precision of the directions.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from goldilocks_zone.models import conv2d_float64, modes, networks

if TYPE_CHECKING:
    from goldilocks_zone.curvature.directions import Directions

EXAMPLES_COMPARED = 6
# Of the largest entry, in double precision: sums in another order differ by 1e-13 at most, another function by more.
SAME = 1e-8


@dataclass(frozen=True)
class Activation:
    """An element-wise function φ with its first derivative, and its second (None where that vanishes).

    `homogeneous`: φ(αz) = αφ(z) for α > 0.
    """

    function: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    bend: Callable[[Tensor], Tensor] | None = None
    homogeneous: bool = False

    def forward(self, theta: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """φ(z), and z to keep."""
        return self.function(a), a

    def adjoint(self, theta: Tensor, kept: Tensor, delta: Tensor) -> Tensor:
        """φ′(z) ⊙ δ."""
        return self.slope(kept) * delta


@dataclass(frozen=True)
class Reshape:
    """Flattening of everything behind the examples."""

    homogeneous = True

    def forward(self, theta: Tensor, a: Tensor) -> tuple[Tensor, torch.Size]:
        """Flattened activations, and their shape to keep."""
        return a.flatten(1), a.shape[1:]

    def adjoint(self, theta: Tensor, kept: torch.Size, delta: Tensor) -> Tensor:
        """δ in the shape of the inputs."""
        return delta.reshape(len(delta), *kept)

    def tangent(self, kept: torch.Size, tangents: Tensor) -> Tensor:
        """Flattened tangents."""
        return tangents if len(kept) == 1 else tangents.flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class MaxPool:
    """Maximum over windows: a choice of entries, fixed almost everywhere."""

    options: tuple  # kernel, stride, padding, dilation, ceil_mode of torch
    homogeneous = True

    def forward(self, theta: Tensor, a: Tensor) -> tuple[Tensor, tuple[Tensor, torch.Size]]:
        """Maxima, and to keep which entries they are and the size of the inputs."""
        pooled, chosen = functional.max_pool2d_with_indices(a, *self.options)
        return pooled, (chosen.flatten(2), a.shape[2:])

    def adjoint(self, theta: Tensor, kept: tuple[Tensor, torch.Size], delta: Tensor) -> Tensor:
        """δ at the entries chosen, zero elsewhere."""
        chosen, size = kept
        spread = delta.new_zeros(*delta.shape[:2], size.numel()).scatter_add_(2, chosen, delta.flatten(2))
        return spread.view(*delta.shape[:2], *size)

    def tangent(self, kept: tuple[Tensor, torch.Size], tangents: Tensor) -> Tensor:
        """The tangents of the entries chosen."""
        chosen, _ = kept
        flat = tangents.flatten(3)
        height, width = functional.max_pool2d(tangents[0, :1], *self.options).shape[2:]
        return flat.gather(3, chosen.expand(len(flat), *chosen.shape)).view(*flat.shape[:3], height, width)


@dataclass(frozen=True)
class AveragePool:
    """Average over windows: linear."""

    options: tuple  # kernel, stride, padding, ceil_mode, count_include_pad, divisor_override of torch
    homogeneous = True

    def forward(self, theta: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Averages, and the inputs to keep."""
        return functional.avg_pool2d(a, *self.options), a

    def adjoint(self, theta: Tensor, kept: Tensor, delta: Tensor) -> Tensor:
        """δ spread over each window."""
        return torch.ops.aten.avg_pool2d_backward(delta, kept, *self.options)

    def tangent(self, kept: Tensor, tangents: Tensor) -> Tensor:
        """Averages of the tangents."""
        return functional.avg_pool2d(tangents.flatten(0, 1), *self.options).unflatten(0, tangents.shape[:2])


@dataclass(frozen=True)
class Affine:
    """z = W a + b. `weight` and `bias` are places in the parameter vector, `shape` is that of W."""

    weight: slice
    bias: slice | None
    shape: tuple[int, ...]
    homogeneous = True

    def weights(self, theta: Tensor) -> Tensor:
        """W of shape `shape` from one parameter vector (D,), or of (d, *shape) from several (d, D)."""
        return theta[..., self.weight].unflatten(-1, self.shape)

    def forward(self, theta: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """W a + b, and the inputs a to keep."""
        b = None if self.bias is None else theta[self.bias]
        return self.apply(a, self.weights(theta), b), a

    def adjoint(self, theta: Tensor, kept: Tensor, delta: Tensor) -> Tensor:
        """Wᵀδ."""
        return self.pull(self.weights(theta), kept, delta)


@dataclass(frozen=True)
class Dense(Affine):
    """A fully connected layer."""

    def apply(self, a: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """W a + b, shape (n, o)."""
        return functional.linear(a, weights, bias)

    def pull(self, weights: Tensor, a: Tensor, delta: Tensor) -> Tensor:
        """Wᵀδ, shape (n, i)."""
        return delta @ weights

    def turn(self, directions: "Directions", a: Tensor, onto: Tensor | None = None) -> Tensor:
        """Ẇ a for each direction, shape (d, o, n), added to `onto` where there is one."""
        d = len(directions)
        if not directions.is_sparse(self):
            weights, a = directions.weights(self), a.expand(d, -1, -1)
            return torch.bmm(weights, a) if onto is None else onto.baddbmm_(weights, a)
        if onto is None:
            onto = a.new_zeros(d, self.shape[0], a.shape[1])
        onto.flatten(0, 1).addmm_(directions.sparse_rows(self), a)
        return onto

    def carry(self, weights: Tensor, tangents: Tensor) -> Tensor:
        """W ȧ, shape (d, o, n)."""
        return torch.bmm(weights.expand(len(tangents), -1, -1), tangents)

    def shift(self, biases: Tensor, a: Tensor, weights: Tensor) -> Tensor:
        """ḃ (d, o) for every example, shape (d, o, n)."""
        return biases[..., None].expand(-1, -1, a.shape[1])

    def weight_gradients(self, delta: Tensor, tangents: Tensor, weights: Tensor) -> Tensor:
        """M = Σ_n δ ȧᵀ for each direction, shape (d, o · i)."""
        return torch.bmm(delta.expand(len(tangents), -1, -1), tangents.transpose(1, 2)).flatten(1)

    def pull_directions(self, directions: "Directions", a: Tensor, delta: Tensor) -> Tensor:
        """Ẇᵀδ for each direction, shape (d, i, n)."""
        if directions.is_sparse(self):
            pulled = delta.new_zeros(len(directions) * self.shape[1], delta.shape[1])
            return pulled.addmm_(directions.sparse_columns(self), delta).unflatten(0, (len(directions), -1))
        return torch.bmm(directions.weights(self).transpose(1, 2), delta.expand(len(directions), -1, -1))

    def extent(self, a: Tensor, weights: Tensor) -> tuple[int, int]:
        """For one example: the places where the weights apply, one, and the entries of the inputs."""
        return 1, self.shape[1]

    def by_example(self, tangents: Tensor) -> Tensor:
        """Tangents of its inputs in the order (n, d, i)."""
        return tangents.permute(2, 0, 1)

    def pull_stacked(self, directions: "Directions", rows: slice, a: Tensor, deltas: Tensor) -> Tensor:
        """Ẇᵀδ for adjoints (n, f, o) and some directions: shape (n, f · d, i)."""
        n, f, o = deltas.shape
        stacked = directions.stacked(self)[:, rows]
        return (deltas.view(n * f, o) @ stacked.flatten(1)).view(n, -1, self.shape[1])


@dataclass(frozen=True)
class Convolution(Affine):
    """A convolution with zero padding and one group."""

    options: tuple  # stride, padding, dilation of torch

    def apply(self, a: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """W ∗ a + b, shape (n, o, …)."""
        if not self._is_ours(a):
            return functional.conv2d(a, weights, bias, *self.options)
        found = conv2d_float64.convolved(a, weights, self.options[1])
        return found if bias is None else found.add_(bias[:, None, None])

    def pull(self, weights: Tensor, a: Tensor, delta: Tensor) -> Tensor:
        """The transposed convolution of δ, shape (n, i, …)."""
        if self._is_ours(delta):
            return conv2d_float64.pulled(delta, weights, self.options[1])
        return self._backward(delta, a, weights, (True, False, False))

    def turn(self, directions: "Directions", a: Tensor, onto: Tensor | None = None) -> Tensor:
        """Ẇ ∗ a for each direction, stacked as output channels: shape (d, n, o, …), added to `onto` if there is one."""
        stacked = directions.weights(self).flatten(0, 1)
        turned = self.apply(a, stacked, None).unflatten(1, (len(directions), -1)).transpose(0, 1)
        return turned if onto is None else onto.add_(turned)

    def carry(self, weights: Tensor, tangents: Tensor) -> Tensor:
        """W ∗ ȧ, shape (d, n, o, …)."""
        return self.apply(tangents.flatten(0, 1), weights, None).unflatten(0, tangents.shape[:2])

    def shift(self, biases: Tensor, a: Tensor, weights: Tensor) -> Tensor:
        """ḃ (d, o) for every example and pixel, shape (d, n, o, …)."""
        places = self.apply(a[:1], weights, None).shape[2:]
        return biases[:, None, :, None, None].expand(-1, len(a), -1, *places)

    def weight_gradients(self, delta: Tensor, tangents: Tensor, weights: Tensor) -> Tensor:
        """Gradients of W with the tangents as inputs, shape (d, o · i · k · k)."""
        if self._is_ours(delta):
            return conv2d_float64.weight_gradients(delta, tangents, self.shape, self.options[1]).flatten(1)
        each = [self._backward(delta, tangent, weights, (False, True, False)) for tangent in tangents]
        return torch.stack(each).flatten(1)

    def pull_directions(self, directions: "Directions", a: Tensor, delta: Tensor) -> Tensor:
        """The transposed convolution of δ by each Ẇ, stacked as input channels: shape (d, n, i, …)."""
        weights = directions.weights(self).transpose(0, 1).flatten(1, 2)
        stand_in = a.new_empty(1).expand(len(delta), weights.shape[1], *a.shape[2:])
        return self.pull(weights, stand_in, delta).unflatten(1, (len(directions), -1)).transpose(0, 1)

    def extent(self, a: Tensor, weights: Tensor) -> tuple[int, int]:
        """For one example of the inputs `a`: the places where the weights apply, and the entries of the inputs."""
        return self.apply(a[:1], weights, None).shape[2:].numel(), a[0].numel()

    def by_example(self, tangents: Tensor) -> Tensor:
        """Tangents of its inputs in the order (n, d, i · …)."""
        return tangents.flatten(2).transpose(0, 1)

    def pull_stacked(self, directions: "Directions", rows: slice, a: Tensor, deltas: Tensor) -> Tensor:
        """Transposed convolutions of adjoints (n, f, o, …) by some directions: shape (n, f · d, i · …)."""
        n, f = deltas.shape[:2]
        part = directions.rows(rows.start, rows.stop)
        pulled = self.pull_directions(part, a, deltas.flatten(0, 1)).transpose(0, 1)
        return pulled.reshape(n, f * len(part), -1)

    def _is_ours(self, a: Tensor) -> bool:
        """Whether `convolutions` is the faster way."""
        (_, padding, _), kernel = self.options, self.shape[2:]
        plain = self.options == ((1, 1), padding, (1, 1)) and padding[0] < kernel[0] and padding[1] < kernel[1]
        return plain and a.dtype == torch.float64 and a.device.type == "cpu"

    def _backward(self, delta: Tensor, a: Tensor, weights: Tensor, wanted: tuple[bool, bool, bool]) -> Tensor:
        stride, padding, dilation = self.options
        found = torch.ops.aten.convolution_backward(
            delta, a, weights, None, stride, padding, dilation, False, [0, 0], 1, wanted
        )
        return found[wanted.index(True)]


@dataclass(frozen=True)
class Residual:
    """a + inner(a)."""

    inner: tuple
    homogeneous = False


@dataclass
class Kept:
    """What one layer keeps of the forward pass at a point, and the adjoint δ of its output."""

    layer: object
    forward: object
    output: Tensor
    delta: Tensor | None = None
    inner: list["Kept"] = field(default_factory=list)


def laid_out(a: Tensor) -> Tensor:
    """Activations or adjoints (n, …) in the order of the tangents: (o, n) for vectors, as they are for images."""
    return a.T.contiguous() if a.ndim == 2 else a


def of(module: nn.Module) -> tuple | None:
    """The chain of a module made of known layers alone, in the order of `module.parameters()`; None for any other."""
    places, start = {}, 0
    for parameter in module.parameters():
        places[id(parameter)] = slice(start, start + parameter.numel())
        start += parameter.numel()
    seen = set()
    try:
        chain = tuple(_layers(module, places, seen))
    except _Unknown:
        return None
    return chain if any(affine_layers(chain)) else None


@modes.differentiating
def matching(network: nn.Module | networks.Logits, points: Iterable[Tensor], inputs: Tensor) -> tuple | None:
    """The chain of a network if it gives the network's own logits and their gradient; None otherwise.

    Layers are known by their classes, which do not tell what was set on an object, as another forward pass: so both are
    compared at each of the `points` (D,), on a few of the `inputs` (n, …). And dense layers must see one vector for
    each example, not several side by side.
    """
    chain = of(network) if isinstance(network, nn.Module) else None
    if chain is None:
        return None
    some, logits = networks.few(inputs, EXAMPLES_COMPARED).double(), networks.logits_function(network)
    return chain if all(_agrees(chain, logits, theta.double(), some) for theta in points) else None


def _agrees(chain: tuple, logits: networks.Logits, theta: Tensor, inputs: Tensor) -> bool:
    point = theta.detach().clone().requires_grad_()
    expected = logits(point, inputs)
    if not networks.same(point, theta):
        return False
    try:
        outputs, kept = forward(chain, theta, inputs)
    except RuntimeError:
        # Another forward pass may take inputs that its layers do not.
        return False
    if not all(each.forward.ndim == 2 for each in _flat(kept) if isinstance(each.layer, Dense)):
        return False
    if not (expected.requires_grad and _is_same(outputs, expected.detach())):
        return False
    # Any adjoint will do whose entries differ.
    adjoint = torch.arange(1, expected.numel() + 1).to(expected).cos().view_as(expected)
    (slopes,) = torch.autograd.grad(expected, point, adjoint)
    return _is_same(gradient(backward(kept, theta, adjoint, to_inputs=False)[1], theta), slopes)


def _is_same(found: Tensor, expected: Tensor) -> bool:
    """To rounding, where both are finite: what is not is refused with the examples that have it."""
    if found.shape != expected.shape:
        return False
    error, size = (found - expected).abs(), expected.abs()
    if not torch.isfinite(error.sum()):
        finite = torch.isfinite(found) & torch.isfinite(expected)
        error, size = (torch.where(finite, each, 0) for each in (error, size))
    return bool(error.max() <= SAME * size.max() + torch.finfo(expected.dtype).tiny)


class _Unknown(Exception):
    """A layer whose derivatives are not written out here."""


def _layers(module: nn.Module, places: dict[int, slice], seen: set[int]) -> Iterator:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    if any(hooks) or getattr(module, "parametrizations", None):
        raise _Unknown
    if type(module) is nn.Sequential:
        for child in module:
            yield from _layers(child, places, seen)
        return
    if type(module) is networks.Residual:
        yield Residual(tuple(_layers(module.inner, places, seen)))
        return
    own = {id(parameter) for parameter in module.parameters()}
    if own & seen:
        # A layer called twice, or tied to another: sweeps keep products by a layer's place.
        raise _Unknown
    seen |= own
    yield _layer(module, places)


def _layer(module: nn.Module, places: dict[int, slice]) -> object:
    kind = type(module)
    if kind is nn.Linear or kind is nn.Conv2d:
        if not {id(each) for each in (module.weight, module.bias) if each is not None} <= places.keys():
            # Frozen, as a buffer.
            raise _Unknown
        weight = places[id(module.weight)]
        bias = None if module.bias is None else places[id(module.bias)]
        if kind is nn.Linear:
            return Dense(weight, bias, tuple(module.weight.shape))
        if module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            options = (module.stride, module.padding, module.dilation)
            return Convolution(weight, bias, tuple(module.weight.shape), options)
    elif kind is nn.MaxPool2d and not module.return_indices:
        options = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
        return MaxPool(tuple(map(_pair, options[:4])) + options[4:])
    elif kind is nn.AvgPool2d:
        options = (module.kernel_size, module.stride, module.padding)
        more = (module.ceil_mode, module.count_include_pad, module.divisor_override)
        return AveragePool(tuple(map(_pair, options)) + more)
    elif kind is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return Reshape()
    elif activation := _activation(module):
        return activation
    raise _Unknown


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def _activation(module: nn.Module) -> Activation | None:
    kind = type(module)
    if kind is nn.Identity:
        return Activation(lambda z: z, torch.ones_like, homogeneous=True)
    if kind is nn.ReLU:
        return Activation(torch.relu, lambda z: (z > 0).to(z.dtype), homogeneous=True)
    if kind is nn.LeakyReLU:
        low = module.negative_slope

        def either(z):
            return torch.full_like(z, low).masked_fill_(z > 0, 1.0)

        return Activation(lambda z: functional.leaky_relu(z, low), either, homogeneous=True)
    if kind is nn.Tanh:
        return Activation(torch.tanh, lambda z: 1 - torch.tanh(z) ** 2, _bend_of_tanh)
    if kind is nn.Softplus:
        return _softplus(module, module.beta, module.threshold)
    if kind is networks.CentredSoftplus:
        return _softplus(module, module.beta, nn.Softplus().threshold)
    return None


def _softplus(function: Callable[[Tensor], Tensor], beta: float, threshold: float) -> Activation:
    """softplus(βz)/β, shifted or not, which torch makes linear where βz is above the threshold."""

    def slope(z):
        return torch.where(beta * z > threshold, 1.0, torch.sigmoid(beta * z))

    def bend(z):
        sigmoid = torch.sigmoid(beta * z)
        return torch.where(beta * z > threshold, 0.0, beta * sigmoid * (1 - sigmoid))

    return Activation(function, slope, bend)


def _bend_of_tanh(z: Tensor) -> Tensor:
    value = torch.tanh(z)
    return -2 * value * (1 - value**2)


def affine_layers(chain: tuple) -> Iterator[Affine]:
    """The layers with parameters, first to last; those inside of residual blocks too."""
    for layer in chain:
        if isinstance(layer, Residual):
            yield from affine_layers(layer.inner)
        elif isinstance(layer, Affine):
            yield layer


def is_smooth(chain: tuple) -> bool:
    """Whether some activation has a second derivative."""
    return any(
        is_smooth(layer.inner) if isinstance(layer, Residual) else getattr(layer, "bend", None) is not None
        for layer in chain
    )


def _flat(kept: list["Kept"]) -> Iterator["Kept"]:
    for each in kept:
        yield each
        yield from _flat(each.inner)


def forward(chain: tuple, theta: Tensor, a: Tensor) -> tuple[Tensor, list[Kept]]:
    """Outputs of the chain at parameters θ (D,) for inputs (n, …), and what each layer keeps."""
    kept = []
    for layer in chain:
        if isinstance(layer, Residual):
            inside, inner = forward(layer.inner, theta, a)
            a = a + inside
            kept.append(Kept(layer, None, a, inner=inner))
        else:
            a, memory = layer.forward(theta, a)
            kept.append(Kept(layer, memory, a))
    return a, kept


def backward(
    kept: list[Kept], theta: Tensor, delta: Tensor, to_inputs: bool = True
) -> tuple[Tensor | None, list[Kept]]:
    """The adjoint `delta` (n, …) of a chain's outputs carried back: that of its inputs, and of each layer's output.

    Without `to_inputs` it ends at the first layer with parameters; below it there are no adjoints.
    """
    first = next((number for number, each in enumerate(kept) if isinstance(each.layer, Affine | Residual)), 0)
    result = []
    for number, each in reversed(list(enumerate(kept))):
        result.append(replace(each, delta=delta))
        if isinstance(each.layer, Residual):
            below, result[-1].inner = backward(each.inner, theta, delta)
            delta = delta + below
        elif number <= first and not to_inputs:
            delta = None
        else:
            delta = each.layer.adjoint(theta, each.forward, delta)
    return delta, result[::-1]


def radial_derivative(kept: list[Kept]) -> float:
    """⟨∇L, θ⟩ = Σ_l ⟨δ_l, z_l⟩ over the layers with parameters, from a backward pass."""
    total = 0.0
    for each in kept:
        if isinstance(each.layer, Residual):
            total += radial_derivative(each.inner)
        elif isinstance(each.layer, Affine):
            total += float((each.delta * each.output).sum())
    return total


def gradient(kept: list[Kept], theta: Tensor) -> Tensor:
    """Σ_n of the derivatives by θ (D,) of what the adjoint was taken of, from a backward pass."""
    found = torch.zeros_like(theta)
    for each in _flat(kept):
        layer = each.layer
        if isinstance(layer, Affine):
            delta, inputs = laid_out(each.delta), laid_out(each.forward)
            found[layer.weight] = layer.weight_gradients(delta, inputs[None], layer.weights(theta))[0]
            if layer.bias is not None:
                found[layer.bias] = each.delta.transpose(0, 1).flatten(1).sum(1)
    return found
