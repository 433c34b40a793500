"""Networks as chains of layers, with the derivatives from which projected Hessians are built.

A chain is a tuple of the layers of a network, in order. A projected Hessian needs one forward pass, one backward pass
of an adjoint, and one forward pass of the tangents along all directions.

Activations and adjoints are (n, …). Tangents of vectors with o entries are (d, o, n), so that products with weights
need no transposition; the function `laid_out` brings activations to the same order, (o, n). Tangents of images with o
channels are (d, n, o, …). None in place of tangents means that they vanish. Parameters θ and adjoints are in double
precision, tangents in the precision of the directions.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from goldilocks_zone.models import kernels, layers, networks

Memory = list[layers.Kept]
EXAMPLES_COMPARED = 6


def laid_out(a: Tensor) -> Tensor:
    """Bring activations or adjoints `a` to the axis order of tangents: vectors (n, o) to (o, n), images unchanged."""
    return a.T.contiguous() if a.ndim == 2 else a


def of(module: nn.Module) -> tuple | None:
    """Chain of a `module`: the tuple of its layers, as classes of `layers`.

    Returns None if no layer has parameters, or if no chain describes the module, for the reasons that `_Unknown` lists.
    Each layer finds its weights and its bias by slices of the parameter vector θ (D,), which has the order of
    `module.parameters()`.
    """
    places, start = {}, 0
    for parameter in module.parameters():
        places[id(parameter)] = slice(start, start + parameter.numel())
        start += parameter.numel()
    try:
        chain = tuple(_layers(module, places, set()))
    except _Unknown:
        return None
    return chain if any(affine_layers(chain)) else None


@kernels.differentiating
def matching(network: nn.Module | networks.Logits, points: Iterable[Tensor], inputs: Tensor) -> tuple | None:
    """Chain of a `network`, as from `of`, if it reproduces the network's logits and their gradient; None otherwise.

    The check is needed because a module's forward pass may differ from the one that its layers suggest. It compares the
    logits, and the gradient of one linear combination of them, at each of the `points` (D,), on a few of the `inputs`
    (n, …). The result is also None if a dense layer takes more than one vector per example.
    """
    chain = of(network) if isinstance(network, nn.Module) else None
    if chain is None:
        return None
    some, logits = networks.few(inputs, EXAMPLES_COMPARED).double(), networks.logits_function(network)
    return chain if all(_agrees(chain, logits, theta.double(), some) for theta in points) else None


def _agrees(chain: tuple, logits: networks.Logits, theta: Tensor, inputs: Tensor) -> bool:
    point = theta.detach().clone().requires_grad_()
    expected = logits(point, inputs)
    if not (networks.same(point, theta) and expected.requires_grad):
        return False
    try:
        outputs, kept = forward(chain, theta, inputs)
    except RuntimeError:
        # A custom forward pass may accept inputs that the layers themselves reject.
        return False
    vectors = all(each.forward.ndim == 2 for each in layers.flat(kept) if isinstance(each.layer, layers.Dense))
    if not (vectors and networks.same_to_rounding(outputs, expected.detach())):
        return False
    # Any adjoint with distinct entries works.
    adjoint = torch.arange(1, expected.numel() + 1).to(expected).cos().view_as(expected)
    (slopes,) = torch.autograd.grad(expected, point, adjoint)
    return networks.same_to_rounding(gradient(backward(kept, theta, adjoint, to_inputs=False)[1], theta), slopes)


class _Unknown(Exception):
    """Raised for a module that no chain describes.

    Such a module has hooks, a layer for which `layers` has no class, or a layer with tied or frozen parameters.
    """


def _layers(module: nn.Module, places: dict[int, slice], seen: set[int]) -> Iterator:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    if any(hooks) or getattr(module, "parametrizations", None):
        raise _Unknown
    if type(module) is nn.Sequential:
        for child in module:
            yield from _layers(child, places, seen)
    elif type(module) is networks.Residual:
        yield layers.Residual(tuple(_layers(module.inner, places, seen)))
    else:
        own = {id(parameter) for parameter in module.parameters()}
        if own & seen:
            # The layer is called twice or tied to another, but sweeps store one product for each slice of θ.
            raise _Unknown
        seen |= own
        yield _layer(module, places)


def _layer(module: Any, places: dict[int, slice]) -> object:
    kind = type(module)
    if kind is nn.Linear or kind is nn.Conv2d:
        if not {id(each) for each in (module.weight, module.bias) if each is not None} <= places.keys():
            # A frozen weight or bias is a buffer, and has no slice of θ.
            raise _Unknown
        weight = places[id(module.weight)]
        bias = None if module.bias is None else places[id(module.bias)]
        if kind is nn.Linear:
            return layers.Dense(weight, bias, tuple(module.weight.shape))
        if module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            options = (module.stride, module.padding, module.dilation)
            return layers.Convolution(weight, bias, tuple(module.weight.shape), options)
    elif kind is nn.MaxPool2d and not module.return_indices:
        options = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
        return layers.MaxPool(tuple(map(_pair, options[:4])) + options[4:])
    elif kind is nn.AvgPool2d:
        options = (module.kernel_size, module.stride, module.padding)
        more = (module.ceil_mode, module.count_include_pad, module.divisor_override)
        return layers.AveragePool(tuple(map(_pair, options)) + more)
    elif kind is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return layers.Reshape()
    elif activation := _activation(module):
        return activation
    raise _Unknown


def _pair(value: Any) -> tuple[int, ...]:
    """Sizes along the axes of an image, of which torch takes one for both, too, in a tuple or as any whole number."""
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def _activation(module: Any) -> layers.Activation | None:
    kind = type(module)
    if kind is nn.Identity:
        return layers.Activation(lambda z: z, torch.ones_like, homogeneous=True)
    if kind is nn.ReLU:
        return layers.Activation(torch.relu, lambda z: (z > 0).to(z.dtype), homogeneous=True)
    if kind is nn.LeakyReLU:
        low = module.negative_slope
        leaky = partial(functional.leaky_relu, negative_slope=low)
        return layers.Activation(leaky, lambda z: torch.full_like(z, low).masked_fill_(z > 0, 1.0), homogeneous=True)
    if kind is nn.Tanh:
        return layers.Activation(torch.tanh, lambda z: 1 - torch.tanh(z) ** 2, _bend_of_tanh)
    if kind is nn.Sigmoid:
        return layers.Activation(
            torch.sigmoid, _slope_of_sigmoid, lambda z: _slope_of_sigmoid(z) * (1 - 2 * torch.sigmoid(z))
        )
    if kind is nn.Softplus:
        return _softplus(module, module.beta, module.threshold)
    if kind is networks.CentredSoftplus:
        return _softplus(module, module.beta, nn.Softplus().threshold)
    return None


def _bend_of_tanh(z: Tensor) -> Tensor:
    value = torch.tanh(z)
    return -2 * value * (1 - value**2)


def _slope_of_sigmoid(z: Tensor) -> Tensor:
    value = torch.sigmoid(z)
    return value * (1 - value)


def _softplus(function: Callable[[Tensor], Tensor], beta: float, threshold: float) -> layers.Activation:
    """Layer of the activation `function`, which computes softplus(βz)/β + c for some constant c, with β = `beta`.

    Where βz exceeds `threshold`, torch uses z in place of softplus(βz)/β; the derivatives returned here allow for this.
    """

    def slope(z):
        return torch.where(beta * z > threshold, 1.0, torch.sigmoid(beta * z))

    def bend(z):
        sigmoid = torch.sigmoid(beta * z)
        return torch.where(beta * z > threshold, 0.0, beta * sigmoid * (1 - sigmoid))

    return layers.Activation(function, slope, bend)


def affine_layers(chain: tuple) -> Iterator[layers.Affine]:
    """Iterate, from first to last, over the layers with parameters of a `chain`, including those in residual blocks."""
    return (layer for layer in layers.flat(chain) if isinstance(layer, layers.Affine))


def is_smooth(chain: tuple) -> bool:
    """Return whether some activation of a chain has a non-zero second derivative, as tanh has and ReLU has not."""
    return any(getattr(layer, "bend", None) is not None for layer in layers.flat(chain))


def forward(chain: tuple, theta: Tensor, a: Tensor) -> tuple[Tensor, Memory]:
    """Run a forward pass of a `chain` at parameters θ (D,) on inputs `a` (n, …).

    Returns the outputs, and a list with one record, a `layers.Kept`, for each layer. The record of a residual block
    contains those of the layers in it.
    """
    kept = []
    for layer in chain:
        if isinstance(layer, layers.Residual):
            inside, inner = forward(layer.inner, theta, a)
            a = a + inside
            kept.append(layers.Kept(layer, None, a, inner=inner))
        else:
            a, memory = layer.forward(theta, a)
            kept.append(layers.Kept(layer, memory, a))
    return a, kept


def backward(kept: Memory, theta: Tensor, delta: Tensor, to_inputs: bool = True) -> tuple[Tensor | None, Memory]:
    """Propagate the adjoint `delta` (n, …) of a chain's outputs back to the output of each layer, at parameters θ (D,).

    `kept` holds the records of the layers, as `forward` returns them. Returns the adjoint of the chain's inputs, and a
    copy of `kept` to which the adjoint of each layer's output is added. If `to_inputs` is false, the pass stops at the
    first layer that has parameters; if a residual block comes first, it stops at the inputs of the block. Adjoints
    further down are None.
    """
    moving = [isinstance(each.layer, layers.Affine | layers.Residual) for each in kept]
    first, result = moving.index(True) if any(moving) else 0, []
    below: Tensor | None = delta
    for number, each in reversed(list(enumerate(kept))):
        result.append(replace(each, delta=below))
        if below is None or (number <= first and not to_inputs and not isinstance(each.layer, layers.Residual)):
            below = None
        elif isinstance(each.layer, layers.Residual):
            inside, result[-1].inner = backward(each.inner, theta, below)
            assert inside is not None  # This pass went to the inputs.
            below = below + inside
        else:
            below = each.layer.adjoint(theta, each.forward, below)
    return below, result[::-1]


def radial_derivative(kept: Memory) -> float:
    """Radial derivative ⟨∇L, θ⟩ = Σ_l ⟨δ_l, z_l⟩ of a loss L, where l runs over the layers with parameters.

    `kept` holds the records that `backward` returns. They contain the outputs z_l of the layers and the adjoints
    δ_l = ∂L/∂z_l.
    """
    total = 0.0
    for each in kept:
        if isinstance(each.layer, layers.Residual):
            total += radial_derivative(each.inner)
        elif isinstance(each.layer, layers.Affine):
            assert each.delta is not None  # The backward pass goes as far as these layers.
            total += float((each.delta * each.output).sum())
    return total


def gradient(kept: Memory, theta: Tensor) -> Tensor:
    """Gradient (D,) of a loss with respect to θ, summed over examples; `kept` holds the records from `backward`."""
    found = torch.zeros_like(theta)
    for each in layers.flat(kept):
        layer: Any = each.layer
        if isinstance(layer, layers.Dense | layers.Convolution):
            delta, inputs = laid_out(each.delta), laid_out(each.forward)
            found[layer.weight] = layer.weight_gradients(delta, inputs[None], layer.weights(theta))[0]
            if layer.bias is not None:
                found[layer.bias] = each.delta.transpose(0, 1).flatten(1).sum(1)
    return found
