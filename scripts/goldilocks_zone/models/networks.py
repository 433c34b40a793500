"""Networks as functions of one flat parameter vector, and their initialisations; a user's own among them.

Parameters are flattened layer by layer, in the order of `module.parameters()`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

from goldilocks_zone.models import kernels, modes, user_code
from goldilocks_zone.models.labels import Convolutional, FullyConnected, LeNet5, Network, parse_network

Logits = Callable[[Tensor, Tensor], Tensor]
ACTIVATIONS = {
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}

# Of the check of a user's own network: how many directions, the step of differences and the error they may show.
# Rounding makes one of eps |logits| / STEP, 2e-10 of the logits; a kink within a step makes one of its change of slope.
FINITE_DIFFERENCES, STEP, SLOPE_TOLERANCE = 3, 1e-6, 1e-4
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


class Residual(nn.Module):
    """Adds to the output of `inner` its input, which has the same shape."""

    def __init__(self, inner: nn.Sequential) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """x + inner(x)."""
        return x + self.inner(x)


class CentredSoftplus(nn.Module):
    """φ(z) = softplus(βz)/β − ln 2/β: ReLU with its kink spread over a width 1/β, and φ(0) = 0."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, z: Tensor) -> Tensor:
        """φ(z), element by element."""
        return nn.functional.softplus(z, self.beta) - math.log(2) / self.beta


def build(network: Network, image: tuple[int, ...], classes: int) -> nn.Sequential:
    """The module of a network label, from images (n, *image) to logits (n, classes).

    `image` is (channels, height, width), or any shape for a fully connected network, which flattens it.
    """
    shapes = network.weight_shapes(image, classes)
    match network:
        case FullyConnected():
            return _fully_connected(network, shapes)
        case Convolutional():
            return _convolutional(network, shapes)
        case LeNet5():
            return _lenet5(network, shapes, network.padding(image))
    raise TypeError(f"{network!r} is no network of a label")


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
    """A dense layer for weights (o, i), a convolution for weights (o, i, size, size)."""
    n_out, n_in, *size = shape
    if size:
        return nn.Conv2d(n_in, n_out, size, bias=network.biases, **options)
    return nn.Linear(n_in, n_out, bias=network.biases)


def build_named(label: str, own: dict | None, image: tuple[int, ...], classes: int) -> nn.Module:
    """The network that a study names, in double precision: of a label, or of the user's own settings `own`.

    Raises ValueError as `labels.parse_network`, `own_code.load` and `build_own` do.
    """
    if own is None:
        return build(parse_network(label), image, classes).double()
    name = f"network {label} ({own['name']} in {own['file']})"
    return build_own(user_code.load(own), image, classes, own["arguments"], name)


def build_own(factory: Callable, image: tuple[int, int, int], classes: int, arguments: dict, name: str) -> nn.Module:
    """A user's own network, `factory(image, classes, **arguments)`, in evaluation mode and double precision.

    `image` is (channels, height, width). Raises ValueError in one sentence with `name` if it is no module from
    images (n, channels, height, width) to logits (n, classes), or not one whose Hessian can be taken.
    """
    modules = []
    for _ in range(2):
        # Whatever the module draws while it is built must not depend on what was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                module = factory(image, classes, **arguments)
            except (Exception, SystemExit) as error:
                raise ValueError(
                    f"{name} cannot be built for images of shape {image} and {classes} classes "
                    f"({type(error).__name__}: {error}): it is called with both, and with its arguments"
                ) from error
        if not isinstance(module, nn.Module):
            raise ValueError(f"{name} gives a {type(module).__name__}: return a torch.nn.Module")
        modules.append(module.eval().double())
    module, tried = modules
    _refuse_unfit_parameters(module, name)
    _refuse_unfit_forward(module, tried, image, classes, name)
    return module


def _refuse_unfit_parameters(module: nn.Module, name: str) -> None:
    for parameter_name, tensor in module.named_parameters():
        if isinstance(tensor, nn.parameter.UninitializedParameter):
            raise ValueError(f"{name} has the parameter {parameter_name} without a shape: leave out lazy layers")
        shape = tuple(tensor.shape)
        if tensor.dtype != torch.float64:
            raise ValueError(f"{name} has the parameter {parameter_name} of type {tensor.dtype}: use real numbers")
        if tensor.ndim < 2 and "bias" not in parameter_name.rsplit(".", 1)[-1]:
            raise ValueError(
                f"{name} has the parameter {parameter_name} of shape {shape}, neither a weight matrix nor a bias: "
                "leave it out, for instance by affine=False or elementwise_affine=False"
            )
        if not tensor.requires_grad:
            raise ValueError(f"{name} has the frozen parameter {parameter_name}: register it as a buffer")
    if len(list(module.named_parameters(remove_duplicate=False))) > len(list(module.named_parameters())):
        raise ValueError(f"{name} uses one parameter under two names: call one layer twice instead")
    if not any(tensor.ndim >= 2 for tensor in module.parameters()):
        raise ValueError(f"{name} has no weights: give it at least one layer")


def _refuse_unfit_forward(
    module: nn.Module, tried: nn.Module, image: tuple[int, int, int], classes: int, name: str
) -> None:
    """Raise ValueError unless `module` is a function of parameters and one image that can be differentiated twice.

    `tried` is the same network, used before `module` is: what a network keeps from its first call tells them apart.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, *image, generator=generator, dtype=torch.float64)
    parameters = parameters_of(module)
    size = sum(p.size for p in parameters)
    deviations = [sigma or BIAS_DEVIATION for sigma in weight_deviations(parameters, "he")]
    sigmas = torch.repeat_interleave(torch.tensor(deviations), torch.tensor([p.size for p in parameters]))
    points = sigmas * torch.randn(2 + FINITE_DIFFERENCES, size, generator=generator, dtype=torch.float64)
    theta, other, *directions = points
    logits = _exact(tried)
    try:
        found = logits(theta, images)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name} fails on images of shape {image} ({type(error).__name__}: {error})") from error
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if shape != (3, classes):
        raise ValueError(f"{name} gives {shape} for 3 images: logits of shape (3, {classes}) are needed")
    if found.dtype != torch.float64:
        raise ValueError(f"{name} gives logits of type {found.dtype} for double precision: leave types as they come in")
    if not torch.isfinite(found).all():
        raise ValueError(f"{name} gives logits that are not finite for images and weights of usual size: correct it")
    if not torch.equal(found, logits(theta, images)):
        raise ValueError(f"{name} gives other logits for the same images: leave out what is random")
    if not torch.equal(logits(other, images), _exact(module)(other, images)):
        raise ValueError(f"{name} keeps something from its first call: let logits depend on weights and image alone")
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    try:
        gradient = grad(lambda parameters: (weights * logits(parameters, images)).sum())
        slopes = [vmap(lambda direction: jvp(gradient, (theta,), (direction,)))(d[None])[0][0] @ d for d in directions]
    except Exception as error:
        raise ValueError(f"{name} cannot be differentiated twice by torch.func ({error})") from error
    if not gradient(theta).any():
        raise ValueError(f"{name} gives logits that do not depend on its weights: leave out detach and the like")
    for direction, slope in zip(directions, slopes):
        # First derivatives: kinks make finite differences of second ones meaningless.
        ahead, behind = ((weights * logits(theta + h * direction, images)).sum() for h in (STEP, -STEP))
        scale = (gradient(theta) * direction).norm()
        if abs(slope - (ahead - behind) / (2 * STEP)) > SLOPE_TOLERANCE * (abs(slope) + scale):
            raise ValueError(
                f"{name} has derivatives that are not those of its logits: leave out detach, item, no_grad, "
                "lower precision and gradients of your own"
            )
    alone = torch.cat([logits(theta, images[i : i + 1]) for i in range(3)])
    if not torch.allclose(found, alone, rtol=1e-8, atol=1e-10 * float(found.abs().max())):
        raise ValueError(f"{name} mixes the images of a batch: logits of one image must not depend on others")


def _exact(module: nn.Module) -> Callable[[Tensor, Tensor], object]:
    """As `outputs_function`, by kernels that can be differentiated twice."""
    return kernels.exact(outputs_function(module))


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


class Unfit(ValueError):
    """A network that no inputs suit as it is; the message says why and what to do."""


def logits_function(network: nn.Module | Logits) -> Logits:
    """The function (parameters of shape (D,), inputs of shape (n, …)) → logits of shape (n, k).

    Of a module by `call`; a function of both is taken as it is. Raises Unfit where outputs are not (n, k).
    """
    outputs_of = outputs_function(network) if isinstance(network, nn.Module) else network

    def logits(parameters: Tensor, inputs: Tensor) -> Tensor:
        return as_logits(outputs_of(parameters, modes.usual(inputs)), len(inputs))

    return logits


def as_logits(outputs: object, examples: int) -> Tensor:
    """The outputs of n examples if they are logits (n, k). Raises Unfit otherwise."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != examples:
        found = f"a {type(outputs).__name__} where logits (n, k) are needed"
        if isinstance(outputs, Tensor):
            found = f"{tuple(outputs.shape)} for {'one example' if examples == 1 else f'{examples} examples'}"
        raise Unfit(
            f"the network gives {found}: wrap it in a module that returns logits (n, k) alone, one for each class, of "
            "one token or of their mean"
        )
    return outputs


def refuse_changing(logits: Logits, parameters: Tensor, inputs: Tensor) -> None:
    """Raise Unfit where logits of a few of the inputs (n, …) change the parameters (D,) they are a function of."""
    point = parameters.detach().clone()
    with torch.no_grad():
        logits(point, few(inputs, 3))
    if not same(point, parameters):
        raise Unfit(
            "the network changes its parameters in its forward pass, as an embedding with max_norm does: leave that "
            "out, so that its logits are a function of them"
        )


def same(first: Tensor, second: Tensor) -> bool:
    """Whether all entries are equal, or no numbers in both."""
    return torch.equal(first.nan_to_num(), second.nan_to_num())


def few(inputs: Tensor, count: int) -> Tensor:
    """At most `count` of the inputs (n, …), from the first to the last: in order they may be of one class."""
    return inputs[torch.linspace(0, len(inputs) - 1, min(count, len(inputs))).long().to(inputs.device)]


def outputs_function(module: nn.Module) -> Callable[[Tensor, Tensor], object]:
    """The function (parameters (D,), inputs (n, …)) → what the module gives, by `call`."""
    shapes = [tensor.shape for tensor in module.parameters()]
    sizes = [shape.numel() for shape in shapes]

    def outputs(parameters: Tensor, inputs: Tensor) -> object:
        pieces = [piece.view(shape) for piece, shape in zip(parameters.split(sizes), shapes)]
        return call(module, pieces, inputs)

    return outputs


def call(module: nn.Module, tensors: Sequence[Tensor], inputs: Tensor) -> object:
    """Outputs of `module` for `inputs` with `tensors` as its parameters, in the order of `module.parameters()`.

    A parameter is replaced at all places that hold it, in lists, tuples and dicts too, as recurrent layers have them.
    All other tensors are copies, real ones in the parameters' precision. Whatever the forward pass changes in these, or
    sets on the module, is taken back, also after an error. Raises Unfit for modules whose parameters are fixed.
    """
    if any(isinstance(layer, torch.jit.ScriptModule) for layer in module.modules()):
        raise Unfit("the network is scripted or traced, so that its parameters are fixed: give the one it is from")
    contents = []
    # torch's functional_call would restore a layer of two names twice: with its own tensors, then with ours.
    for layer in module.modules():
        for held in (layer.__dict__, layer._parameters, layer._buffers, layer._modules):
            contents.append((held, dict(held)))
    stand_ins = {id(held): held for held, _ in contents} | dict(zip(map(id, module.parameters()), tensors))
    try:
        for held, content in contents:
            held.update((name, _replaced(value, stand_ins, tensors[0].dtype)) for name, value in content.items())
        return module(inputs)
    finally:
        for held, content in contents:
            held.clear()
            held.update(content)


def _replaced(value: object, stand_ins: dict[int, object], dtype: torch.dtype) -> object:
    """Stand-in of a tensor by its identity, else a copy; the same of those in lists, tuples and dicts."""
    if id(value) not in stand_ins:
        if isinstance(value, Tensor):
            stand_ins[id(value)] = value.detach().to(dtype if value.is_floating_point() else value.dtype, copy=True)
        elif type(value) in (list, tuple, dict):
            parts = list(value.values() if type(value) is dict else value)
            own = [_replaced(part, stand_ins, dtype) for part in parts]
            # Others stay what they are, and keep what is put into them.
            if any(one is not other for one, other in zip(own, parts)):
                stand_ins[id(value)] = dict(zip(value, own)) if type(value) is dict else type(value)(own)
    return stand_ins.get(id(value), value)


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


def scale(theta: np.ndarray, radius: float, unit: str, r_x: float) -> float:
    """The factor on `theta` (D,) that takes it to norm radius · r_X (`r_X`) or to norm radius (`norm`); for the unit
    `init_scale` the radius itself. Raises ValueError for another unit."""
    if unit == "init_scale":
        return radius
    if unit not in ("r_X", "norm"):
        raise ValueError(f"radius unit {unit!r} is unknown: use r_X, norm or init_scale")
    return radius * (r_x if unit == "r_X" else 1.0) / float(np.linalg.norm(theta))


def ratio(radius: float, unit: str, r_x: float) -> float:
    """A radius over that of reference: r_X, or, for the unit `init_scale`, the initialisation's own."""
    return radius / r_x if unit == "norm" else radius


def rescaled(theta: np.ndarray, radius: float, unit: str, r_x: float) -> np.ndarray:
    """`theta` (D,) at a radius, by the factor that `scale` gives."""
    return theta * scale(theta, radius, unit, r_x)


def layer_indicators(module: nn.Module) -> list[np.ndarray]:
    """For each weight tensor, first to last, an array (D,) that is 1 on its entries and 0 elsewhere."""
    parameters = parameters_of(module)
    sizes = [p.size for p in parameters]
    return [
        np.repeat(np.arange(len(sizes)) == number, sizes).astype(float)
        for number, parameter in enumerate(parameters)
        if not parameter.is_bias
    ]
