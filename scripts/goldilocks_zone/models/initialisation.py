"""Initialisations: the parameters of a network, their deviations, and the unit r_X of the radius."""

import math
from dataclasses import dataclass

import numpy as np
from torch import nn

BIAS_DEVIATION = 0.1


@dataclass(frozen=True)
class Parameter:
    """One tensor of a network: its shape, whether it is a bias, and its fan (1, 1 for a bias)."""

    shape: tuple[int, ...]
    is_bias: bool
    fan_in: int
    fan_out: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


def parameters_of(module: nn.Module) -> list[Parameter]:
    """Shape, kind and fan of each parameter tensor; tensors of one axis count as biases."""
    parameters = []
    for shape in (tuple(tensor.shape) for tensor in module.parameters()):
        is_bias, receptive_field = len(shape) < 2, math.prod(shape[2:])
        fans = (1, 1) if is_bias else (shape[1] * receptive_field, shape[0] * receptive_field)
        parameters.append(Parameter(shape, is_bias, *fans))
    return parameters


def glorot_radius(parameters: list[Parameter]) -> float:
    """r_X: root mean square L2 norm of all weights under Glorot-normal initialisation.

    r_X² = Σ_l size_l · 2/(fan_in + fan_out), for matrices Σ_l 2 n_in n_out/(n_in + n_out) (Fort & Scherlis 2019).
    """
    return math.sqrt(sum(p.size * 2 / (p.fan_in + p.fan_out) for p in parameters if not p.is_bias))


def weight_deviations(parameters: list[Parameter], initialisation: str) -> list[float]:
    """Standard deviation σ of each tensor's entries before any rescaling; 0 where it starts at zero.

    `glorot`: σ² = 2/(fan_in + fan_out) and `he`: σ² = 2/fan_in, biases zero; `isotropic`: σ = 1 for weights and biases
    alike (one Gaussian in R^D, Chang 2019); `uniform`: weights and biases uniform in ±1/√fan_in of their layer, as
    layers of torch start. Raises ValueError for another name.
    """
    if initialisation == "uniform":
        # A bias follows its weights.
        fans = [(before if p.is_bias else p).fan_in for before, p in zip([None, *parameters], parameters)]
        return [1 / math.sqrt(3 * fan) for fan in fans]
    if initialisation == "isotropic":
        return [1.0] * len(parameters)
    if initialisation == "glorot":
        return [0.0 if p.is_bias else math.sqrt(2 / (p.fan_in + p.fan_out)) for p in parameters]
    if initialisation == "he":
        return [0.0 if p.is_bias else math.sqrt(2 / p.fan_in) for p in parameters]
    raise ValueError(f"initialisation {initialisation!r} is unknown: use glorot, he, isotropic or uniform")


def initialise(parameters: list[Parameter], initialisation: str, random: np.random.Generator) -> np.ndarray:
    """A random initialisation, shape (D,), float64, not yet rescaled to a radius."""
    deviations = weight_deviations(parameters, initialisation)
    reach = math.sqrt(3)

    def draw(size: int) -> np.ndarray:
        return random.uniform(-reach, reach, size) if initialisation == "uniform" else random.standard_normal(size)

    return np.concatenate([sigma * draw(p.size) for p, sigma in zip(parameters, deviations)])


def scale(theta: np.ndarray, radius: float, unit: str, r_x: float) -> float:
    """The factor on `theta` (D,) that takes it to norm radius · r_X (`r_X`) or to norm radius (`norm`); for the unit
    `init_scale` the radius itself. Raises ValueError for another unit."""
    if unit == "init_scale":
        return radius
    if unit not in ("r_X", "norm"):
        raise ValueError(f"radius unit {unit!r} is unknown: use r_X, norm or init_scale")
    return radius * (r_x if unit == "r_X" else 1.0) / float(np.linalg.norm(theta))


def ratio(radius: float, unit: str, r_x: float) -> float:
    """A radius over the reference radius: r_X, or the initialisation's own for the unit `init_scale`."""
    return radius / r_x if unit == "norm" else radius


def rescaled(theta: np.ndarray, radius: float, unit: str, r_x: float) -> np.ndarray:
    """`theta` (D,) at a radius, by the factor that `scale` gives."""
    return theta * scale(theta, radius, unit, r_x)


def layer_indicators(module: nn.Module) -> list[np.ndarray]:
    """For each weight tensor, first to last, an array (D,) that is 1 on its entries and 0 elsewhere."""
    parameters = parameters_of(module)
    owner = np.repeat(np.arange(len(parameters)), [p.size for p in parameters])
    return [(owner == number).astype(float) for number, parameter in enumerate(parameters) if not parameter.is_bias]
