"""Random initialisations of a network's parameters, their standard deviations, and the norm r_X, the unit of radii.

A parameter tensor is a weight, a bias or a gain. Gains are the scales of normalisations, slopes of PReLU, and other
tensors with at most one axis and no `bias` in their name. They have own values: those they have in the module.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

BIAS_DEVIATION = 0.1


@dataclass(frozen=True)
class Parameter:
    """One parameter tensor of a network: its shape, its kind, and its fan-in and fan-out (1 and 1 for a bias).

    `is_bias` is True for biases and gains. `own` holds the own values of a gain, at which most initialisations start
    it; for weights and biases, `own` is empty. config/README.md says how initialisations and planes treat each kind.
    """

    shape: tuple[int, ...]
    is_bias: bool
    fan_in: int
    fan_out: int
    own: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Number of entries of the tensor."""
        return math.prod(self.shape)


def parameters_of(module: nn.Module) -> list[Parameter]:
    """Describe each parameter tensor of a module, in the order of `module.parameters()`.

    Tensors of two or more axes are weights. Others are biases if the last part of their name contains `bias`, and gains
    otherwise.
    """
    parameters = []
    for name, tensor in module.named_parameters():
        shape = tuple(tensor.shape)
        is_bias, receptive_field = len(shape) < 2, math.prod(shape[2:])
        fans = (1, 1) if is_bias else (shape[1] * receptive_field, shape[0] * receptive_field)
        is_gain = is_bias and "bias" not in name.rsplit(".", 1)[-1]
        own = tuple(tensor.detach().double().flatten().tolist()) if is_gain else ()
        parameters.append(Parameter(shape, is_bias, *fans, own))
    return parameters


def glorot_radius(parameters: Sequence[Parameter]) -> float:
    """Radius r_X: the root mean square L2 norm of all parameters under Glorot-normal initialisation.

    r_X² is Σ_l size_l · 2/(fan_in + fan_out) over weight tensors l, plus the sum of the squares of the gains' own
    values. If all weights are matrices, the first sum is Σ_l 2 n_in n_out/(n_in + n_out) (Fort & Scherlis 2019).
    """
    weights = sum(p.size * 2 / (p.fan_in + p.fan_out) for p in parameters if not p.is_bias)
    return math.sqrt(weights + sum(value**2 for p in parameters for value in p.own))


def weight_deviations(parameters: Sequence[Parameter], initialisation: str) -> list[float]:
    """Standard deviation σ of the initial entries of each parameter tensor, before rescaling to a radius.

    With `glorot`, weights have σ² = 2/(fan_in + fan_out); with `he`, σ² = 2/fan_in. With both, biases and gains have σ
    = 0. With `isotropic`, σ = 1 for all tensors (one Gaussian in R^D, Chang 2019). With `uniform`, σ is that of the
    uniform distribution in ±1/√fan_in, as in torch, where fan_in is that of the weights of the layer; gains, and biases
    of normalisations, have σ = 0. Raises ValueError for an unknown `initialisation`.
    """
    if initialisation == "uniform":
        found, fan = [], 0
        for p in parameters:
            # A bias follows the weights of its layer, or the gains of its normalisation.
            fan = 0 if p.own else fan if p.is_bias else p.fan_in
            found.append(1 / math.sqrt(3 * fan) if fan else 0.0)
        return found
    if initialisation == "isotropic":
        return [1.0] * len(parameters)
    if initialisation == "glorot":
        return [0.0 if p.is_bias else math.sqrt(2 / (p.fan_in + p.fan_out)) for p in parameters]
    if initialisation == "he":
        return [0.0 if p.is_bias else math.sqrt(2 / p.fan_in) for p in parameters]
    raise ValueError(f"initialisation {initialisation!r} is unknown: use glorot, he, isotropic or uniform")


def initialise(parameters: Sequence[Parameter], initialisation: str, random: np.random.Generator) -> np.ndarray:
    """Draw random initial parameters (D,) in double precision, not yet rescaled to a radius.

    Entries have the standard deviations that `weight_deviations` returns. Their distribution is uniform if
    `initialisation` is `uniform`, and Gaussian otherwise. Gains start at their own values, except with `isotropic`,
    which draws them like all other parameters.
    """
    deviations = weight_deviations(parameters, initialisation)
    reach = math.sqrt(3)

    def draw(size: int) -> np.ndarray:
        return random.uniform(-reach, reach, size) if initialisation == "uniform" else random.standard_normal(size)

    drawn = np.concatenate([sigma * draw(p.size) for p, sigma in zip(parameters, deviations)])
    return drawn if initialisation == "isotropic" else drawn + own_values(parameters)


def own_values(parameters: Sequence[Parameter]) -> np.ndarray:
    """Vector (D,) that holds the own values of gains, and zero for all other parameters."""
    return np.concatenate([p.own or np.zeros(p.size) for p in parameters])


def scale(theta: np.ndarray, radius: float, unit: str, r_x: float) -> float:
    """Factor by which to multiply `theta` (D,) to bring it to a `radius` in the given `unit`.

    If the unit is `r_X`, the resulting norm is radius · r_X; if it is `norm`, the resulting norm is the radius. If it
    is `init_scale`, the radius is itself the factor. Raises ValueError for an unknown unit.
    """
    if unit == "init_scale":
        return radius
    if unit not in ("r_X", "norm"):
        raise ValueError(f"radius unit {unit!r} is unknown: use r_X, norm or init_scale")
    return radius * (r_x if unit == "r_X" else 1.0) / float(np.linalg.norm(theta))


def ratio(radius: float, unit: str, r_x: float) -> float:
    """Ratio of a `radius` to r_X, where the radius is given in one of the units of `scale`.

    If the unit is `init_scale`, the result is instead the ratio to the norm of the initialisation before rescaling,
    which is the radius as given.
    """
    return radius / r_x if unit == "norm" else radius


def rescaled(theta: np.ndarray, radius: float, unit: str, r_x: float) -> np.ndarray:
    """Return `theta` (D,), rescaled to a `radius` in the given `unit`, which the function `scale` defines."""
    return theta * scale(theta, radius, unit, r_x)


def layer_indicators(module: nn.Module) -> list[np.ndarray]:
    """Indicator vectors (D,), one for each weight tensor of a module, in order: 1 at its entries of θ, 0 elsewhere."""
    parameters = parameters_of(module)
    owner = np.repeat(np.arange(len(parameters)), [p.size for p in parameters])
    return [(owner == number).astype(float) for number, parameter in enumerate(parameters) if not parameter.is_bias]
