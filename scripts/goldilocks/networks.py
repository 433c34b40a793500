"""Networks as functions of one flat parameter vector, and their initialisations.

Parameters are flattened layer by layer, in the order of `module.parameters()`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.func import functional_call

from goldilocks.labels import Network

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}


@dataclass(frozen=True)
class Parameter:
    """One tensor of a network: its shape, whether it is a bias, and its fan (1, 1 for a bias)."""

    shape: tuple[int, ...]
    is_bias: bool
    fan_in: int
    fan_out: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def build(network: Network, inputs: int, classes: int) -> nn.Sequential:
    """The module of a network label; images are flattened first."""
    shapes = network.layer_shapes(inputs, classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for number, (n_out, n_in) in enumerate(shapes, start=1):
        layers.append(nn.Linear(n_in, n_out, bias=network.biases))
        if number < len(shapes):
            layers.append(ACTIVATIONS[network.activation]())
    return nn.Sequential(*layers)


def parameters_of(module: nn.Module) -> list[Parameter]:
    """Shape, kind and fan of each parameter tensor; tensors of one axis count as biases."""
    parameters = []
    for tensor in module.parameters():
        if tensor.ndim < 2:
            parameters.append(Parameter(tuple(tensor.shape), True, 1, 1))
        else:
            receptive_field = math.prod(tensor.shape[2:])
            fan_in, fan_out = tensor.shape[1] * receptive_field, tensor.shape[0] * receptive_field
            parameters.append(Parameter(tuple(tensor.shape), False, fan_in, fan_out))
    return parameters


def logits_function(module: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """The function (parameters of shape (D,), inputs of shape (n, …)) → logits of shape (n, k)."""
    names, shapes = zip(*((name, tensor.shape) for name, tensor in module.named_parameters()))
    sizes = [shape.numel() for shape in shapes]

    def logits(parameters: Tensor, inputs: Tensor) -> Tensor:
        tensors = (piece.view(shape) for piece, shape in zip(parameters.split(sizes), shapes))
        return functional_call(module, dict(zip(names, tensors)), (inputs,))

    return logits


def glorot_radius(parameters: list[Parameter]) -> float:
    """r_X: root mean square L2 norm of all weights under Glorot-normal initialisation.

    r_X² = Σ_l size_l · 2/(fan_in + fan_out), for matrices Σ_l 2 n_in n_out/(n_in + n_out) (Fort & Scherlis 2019).
    """
    return math.sqrt(sum(p.size * 2 / (p.fan_in + p.fan_out) for p in parameters if not p.is_bias))


def weight_deviations(parameters: list[Parameter], initialisation: str) -> list[float]:
    """Standard deviation σ of each tensor's entries before any rescaling; 0 where it starts at zero.

    `glorot`: σ² = 2/(fan_in + fan_out) and `he`: σ² = 2/fan_in, biases zero;
    `isotropic`: σ = 1 for weights and biases alike (one Gaussian in R^D, Chang 2019).
    Raises ValueError for another name.
    """
    if initialisation == "isotropic":
        return [1.0] * len(parameters)
    if initialisation == "glorot":
        return [0.0 if p.is_bias else math.sqrt(2 / (p.fan_in + p.fan_out)) for p in parameters]
    if initialisation == "he":
        return [0.0 if p.is_bias else math.sqrt(2 / p.fan_in) for p in parameters]
    raise ValueError(f"initialisation {initialisation!r} is unknown: use glorot, he or isotropic")


def initialise(parameters: list[Parameter], initialisation: str, random: np.random.Generator) -> np.ndarray:
    """A random initialisation, shape (D,), float64, not yet rescaled to a radius."""
    deviations = weight_deviations(parameters, initialisation)
    return np.concatenate([sigma * random.standard_normal(p.size) for p, sigma in zip(parameters, deviations)])


def rescaled(theta: np.ndarray, radius: float, unit: str, r_x: float) -> np.ndarray:
    """`theta` (D,) multiplied by one factor: to norm radius · r_X (`r_X`), to norm radius (`norm`),
    or by the factor radius itself (`init_scale`). Raises ValueError for another unit."""
    if unit == "init_scale":
        return radius * theta
    if unit not in ("r_X", "norm"):
        raise ValueError(f"radius unit {unit!r} is unknown: use r_X, norm or init_scale")
    return theta * (radius * (r_x if unit == "r_X" else 1.0) / np.linalg.norm(theta))
