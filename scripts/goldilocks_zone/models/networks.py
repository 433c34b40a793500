"""Networks: modules built from labels, and modules as functions of one flat parameter vector.

The vector (D,) holds the parameters in the order of `module.parameters()`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from goldilocks_zone.models import kernels, labels
from goldilocks_zone.models.labels import Convolutional, FullyConnected, LeNet5, Network

Logits = Callable[[Tensor, Tensor], Tensor]
ACTIVATIONS: dict[str, type[nn.Module]] = dict(
    zip(labels.ACTIVATIONS, (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Softplus, nn.Sigmoid, nn.Identity))
)
# Tolerance relative to the largest entry. In double precision, the same function computed in another order of sums
# differs by at most 1e-13, a different function by more.
SAME = 1e-8


class Residual(nn.Module):
    """Residual block: the sum of its input and the output of `inner`, which must have the shape of the input."""

    def __init__(self, inner: nn.Sequential) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return x + inner(x)."""
        return x + self.inner(x)


class CentredSoftplus(nn.Module):
    """Activation φ(z) = softplus(βz)/β − ln 2/β: a ReLU whose kink is smoothed over a width 1/β, with φ(0) = 0."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, z: Tensor) -> Tensor:
        """Return φ(z), computed element by element."""
        return nn.functional.softplus(z, self.beta) - math.log(2) / self.beta


def build(network: Network, image: tuple[int, ...], classes: int) -> nn.Sequential:
    """Build the module that a parsed network label describes; it maps images (n, *image) to logits (n, classes).

    `image` is the shape of one image: (channels, height, width), or any shape for `fc` networks.
    """
    shapes = network.weight_shapes(image, classes)
    if isinstance(network, LeNet5):
        return _lenet5(network, shapes, network.padding(image))
    if isinstance(network, FullyConnected):
        return _fully_connected(network, shapes)
    assert isinstance(network, Convolutional)
    return _convolutional(network, shapes)


def _fully_connected(network: FullyConnected, shapes: list[tuple[int, ...]]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for number, shape in enumerate(shapes[:-1]):
        normalisation = [nn.LayerNorm(shape[0], elementwise_affine=False)] if network.normalised else []
        hidden = [_layer(network, shape), *normalisation, ACTIVATIONS[network.activation]()]
        layers += [Residual(nn.Sequential(*hidden))] if network.is_residual(number) else hidden
    return nn.Sequential(*layers, _layer(network, shapes[-1]))


def _convolutional(network: Convolutional, shapes: list[tuple[int, ...]]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for shape in shapes[:-1]:
        convolution = _layer(network, shape, padding=1)
        layers += [convolution, nn.MaxPool2d(2, ceil_mode=True), ACTIVATIONS[network.activation]()]
    return nn.Sequential(*layers, nn.Flatten(), _layer(network, shapes[-1]))


def _lenet5(network: LeNet5, shapes: list[tuple[int, ...]], padding: tuple[int, int]) -> nn.Sequential:
    activation = ACTIVATIONS[network.activation]
    first, second, third, fourth, fifth = shapes
    convolutions = [_layer(network, first, padding=padding), _layer(network, second)]
    layers = [each for layer in convolutions for each in (layer, activation(), nn.AvgPool2d(2))]
    layers += [nn.Flatten(), _layer(network, third), activation(), _layer(network, fourth), activation()]
    return nn.Sequential(*layers, _layer(network, fifth))


def _layer(network: Network, shape: tuple[int, ...], **options) -> nn.Linear | nn.Conv2d:
    """Build a layer with weights of the given `shape`: dense for (o, i), convolutional for (o, i, h, w).

    `options` are keyword arguments of nn.Conv2d.
    """
    n_out, n_in, *size = shape
    if size:
        height, width = size
        return nn.Conv2d(n_in, n_out, (height, width), bias=network.biases, **options)
    return nn.Linear(n_in, n_out, bias=network.biases)


class Unfit(ValueError):
    """Raised for a network that cannot be used in its present state; the message gives the reason and a remedy."""


def logits_function(network: nn.Module | Logits) -> Logits:
    """Function (parameters (D,), inputs (n, …)) → logits (n, k): that of `tensor_function`, with outputs flattened."""
    tensors = tensor_function(network)

    def logits(parameters: Tensor, inputs: Tensor) -> Tensor:
        found = tensors(parameters, inputs)
        return found if found.ndim == 2 else found.reshape(len(inputs), -1)

    return logits


def tensor_function(network: nn.Module | Logits) -> Logits:
    """Function (parameters (D,), inputs (n, …)) → outputs (n, …) of a network, as a tensor in its original shape.

    If the outputs have an item or attribute `logits`, the function returns this item or attribute. It raises Unfit if
    the result is not a tensor with n rows.
    """
    outputs_of = outputs_function(network) if isinstance(network, nn.Module) else network
    return lambda parameters, inputs: _tensor_of(outputs_of(parameters, kernels.usual(inputs)), len(inputs))


def _tensor_of(outputs: object, examples: int) -> Tensor:
    """Return the item or attribute `logits` of `outputs` or, if there is none, `outputs`.

    Raises Unfit unless the result is a tensor with n = `examples` rows.
    """
    found = outputs.get("logits", outputs) if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    return found if isinstance(found, Tensor) and found.shape[:1] == (examples,) else as_logits(found, examples)


def as_logits(outputs: object, examples: int) -> Tensor:
    """Return the `outputs` of n = `examples` examples unchanged. Raises Unfit unless they are a tensor (n, k)."""
    if isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == examples:
        return outputs
    found = f"a {type(outputs).__name__} where logits (n, k) are needed"
    if isinstance(outputs, Tensor):
        found = f"{tuple(outputs.shape)} for {'one example' if examples == 1 else f'{examples} examples'}"
    raise Unfit(
        f"the network gives {found}: wrap it in a module that returns only logits (n, k), one for each class, such as "
        "those of one token or the mean over tokens"
    )


def refuse_changing(logits: Logits, parameters: Tensor, inputs: Tensor) -> None:
    """Raise Unfit if computing the logits of a few `inputs` (n, …) modifies the parameter vector (D,) in place."""
    point = parameters.detach().clone()
    with torch.no_grad():
        logits(point, few(inputs, 3))
    if not same(point, parameters):
        raise Unfit(
            "the network changes its parameters in its forward pass, as an embedding with max_norm does: remove what "
            "changes them"
        )


def same(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors have equal shapes and equal entries, where NaN equals NaN."""
    return first.shape == second.shape and bool(((first == second) | (first.isnan() & second.isnan())).all())


def same_to_rounding(found: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors have equal shapes and agree, up to rounding, wherever both are finite.

    The tolerance is relative to the largest entry of `expected`. Entries that are not finite are not compared, because
    other checks refuse them.
    """
    if found.shape != expected.shape:
        return False
    error, size = (found - expected).abs(), expected.abs()
    if not torch.isfinite(error.sum()):
        finite = torch.isfinite(found) & torch.isfinite(expected)
        error, size = (torch.where(finite, each, 0) for each in (error, size))
    return bool(error.max() <= SAME * size.max() + torch.finfo(expected.dtype).tiny)


def few(inputs: Tensor, count: int) -> Tensor:
    """Select at most `count` of the `inputs` (n, …), evenly spaced, since the first ones may all be of one class."""
    return inputs[torch.linspace(0, len(inputs) - 1, min(count, len(inputs))).long().to(inputs.device)]


def outputs_function(module: nn.Module) -> Callable[[Tensor, Tensor], Any]:
    """Function (parameters (D,), inputs (n, …)) → outputs of the module, of any type, which `call` computes."""
    shapes = [tensor.shape for tensor in module.parameters()]
    sizes = [shape.numel() for shape in shapes]

    def outputs(parameters: Tensor, inputs: Tensor) -> Any:
        pieces = [piece.view(shape) for piece, shape in zip(parameters.split(sizes), shapes)]
        return call(module, pieces, inputs)

    return outputs


def call(module: nn.Module, tensors: Sequence[Tensor], inputs: Tensor) -> Any:
    """Outputs of `module` for `inputs` with `tensors` as its parameters, in the order of `module.parameters()`.

    A parameter is replaced wherever the module holds it, including in lists, tuples and dicts, where recurrent layers
    hold theirs. All other tensors of the module are copied for the call, those of floating point in the precision of
    `tensors`. Changes that the forward pass makes to the module are undone, even after an error. Raises Unfit for
    scripted and traced modules, whose parameters are fixed.
    """
    if any(isinstance(layer, torch.jit.ScriptModule) for layer in module.modules()):
        raise Unfit("the network is scripted or traced, which fixes its parameters: give the module it was made from")
    # torch's functional_call restores a layer with two names twice: the second time, it puts our tensors back.
    contents: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (held, dict(held)) for m in module.modules() for held in (m.__dict__, m._parameters, m._buffers, m._modules)
    ]
    stand_ins: dict[int, Any] = {id(held): held for held, _ in contents} | dict(
        zip(map(id, module.parameters()), tensors)
    )
    dtype = tensors[0].dtype  # Read once: modes of torch make it slow.
    try:
        for held, content in contents:
            held.update((name, _replaced(value, stand_ins, dtype)) for name, value in content.items())
        return module(inputs)
    finally:
        for held, content in contents:
            held.clear()
            held.update(content)


def _replaced(value: Any, stand_ins: dict[int, Any], dtype: torch.dtype) -> Any:
    """Return the replacement of a `value` that a module holds; `stand_ins` maps ids of objects to replacements.

    A tensor that has no replacement in `stand_ins` is copied, in precision `dtype` if it is of floating point. In
    lists, tuples and dicts, each tensor is replaced. Other values are returned unchanged. Copies are added to
    `stand_ins`, so that every reference to a tensor gets the same copy.
    """
    if id(value) not in stand_ins:
        if isinstance(value, Tensor):
            stand_ins[id(value)] = value.detach().to(dtype if value.is_floating_point() else value.dtype, copy=True)
        elif type(value) in (list, tuple, dict):
            parts = list(value.values() if type(value) is dict else value)
            own = [_replaced(part, stand_ins, dtype) for part in parts]
            # Collections without tensors stay the same objects, so that later changes to them are seen.
            if any(one is not other for one, other in zip(own, parts)):
                stand_ins[id(value)] = dict(zip(value, own)) if type(value) is dict else type(value)(own)
    return stand_ins.get(id(value), value)
