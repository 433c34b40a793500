"""Networks that a study names, built from their labels or, for a user's own networks, from their files.

If the Hessian of a user's network cannot be computed, building it raises ValueError.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

from goldilocks_zone.models import initialisation, kernels, labels, networks, user_code

# Check of a user's own network by finite differences: number of directions, step, and tolerated relative error.
# Rounding causes an error of eps |logits| / STEP, which is 2e-8 of the logits. A kink within a step causes an error as
# large as its change of slope. With a step of 1e-6, many of the million units of a ResNet-18 would meet a kink.
FINITE_DIFFERENCES, STEP, SLOPE_TOLERANCE = 3, 1e-8, 1e-4


def build_named(label: str, own: user_code.UserNetwork | None, image: tuple[int, ...], classes: int) -> nn.Module:
    """Build the network that a study names, in double precision.

    It is built from the user's code if `own` describes it, else from the `label`. It maps images of shape `image` to
    logits for k = `classes` classes. Raises ValueError if the label is invalid, or for the same reasons as `build_own`.
    """
    if own is None:
        return networks.build(labels.parse_network(label), image, classes).double()
    name = f"network {label} ({own.name} in {own.file})"
    return build_own(user_code.load(own), image, classes, own.arguments, name)


def build_own(factory: Callable, image: tuple[int, ...], classes: int, arguments: dict, name: str) -> nn.Module:
    """Build a user's own network, `factory(image, classes, **arguments)`, in evaluation mode and double precision.

    `image` is (channels, height, width); `name` identifies the network in messages. Raises ValueError if the result is
    not a module from images (n, *image) to logits (n, classes), or if its Hessian cannot be computed.
    """
    modules = []
    for _ in range(2):
        # Random numbers drawn while the module is built must not depend on earlier draws.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                module = factory(image, classes, **arguments)
            except (Exception, SystemExit) as error:
                raise ValueError(
                    f"{name} cannot be built for images of shape {image} and {classes} classes "
                    f"({type(error).__name__}: {error}): let it take both, and then the arguments that the "
                    "configuration gives"
                ) from error
        if not isinstance(module, nn.Module):
            raise ValueError(f"{name} gives a {type(module).__name__}: return a torch.nn.Module")
        modules.append(with_fixed(module.eval().double()))
    module, tried = modules
    _refuse_unfit_parameters(module, name)
    _refuse_unfit_forward(module, tried, image, classes, name)
    return module


def with_fixed(module: nn.Module) -> nn.Module:
    """Turn each frozen parameter of a module, in place, into a buffer, so that θ does not contain it.

    Returns the module.
    """
    fixed = {id(tensor): tensor.detach() for tensor in module.parameters() if not tensor.requires_grad}
    for layer in module.modules():
        for name, tensor in list(layer._parameters.items()):
            if id(tensor) in fixed:
                del layer._parameters[name]
                layer.register_buffer(name, fixed[id(tensor)])
    return module


def _refuse_unfit_parameters(module: nn.Module, name: str) -> None:
    for parameter_name, tensor in module.named_parameters():
        if isinstance(tensor, nn.parameter.UninitializedParameter):
            raise ValueError(f"{name} has the parameter {parameter_name} without a shape: leave out lazy layers")
        if tensor.dtype != torch.float64:
            raise ValueError(f"{name} has the parameter {parameter_name} of type {tensor.dtype}: use real numbers")
    if not any(tensor.ndim >= 2 for tensor in module.parameters()):
        raise ValueError(f"{name} has no weights to train with two axes or more: unfreeze a layer or add one")


def _refuse_unfit_forward(module: nn.Module, tried: nn.Module, image: tuple, classes: int, name: str) -> None:
    """Raise ValueError unless logits depend on parameters and one image alone, and can be differentiated twice.

    Logits must also have the shape (n, classes), be finite, and be in double precision. `tried` is a second instance of
    the network, which is called several times. `module` is called once, to compare its logits with those of `tried`:
    they differ if calls change a state of the network. `name` identifies the network in messages.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, *image, generator=generator, dtype=torch.float64)
    parameters = initialisation.parameters_of(module)
    size = sum(p.size for p in parameters)
    usual = initialisation.weight_deviations(parameters, "he")
    deviations = torch.tensor([sigma or initialisation.BIAS_DEVIATION for sigma in usual])
    sigmas = torch.repeat_interleave(deviations, torch.tensor([p.size for p in parameters]))
    points = sigmas * torch.randn(2 + FINITE_DIFFERENCES, size, generator=generator, dtype=torch.float64)
    theta, other, *directions = points
    theta, other = (torch.as_tensor(initialisation.own_values(parameters)) + each for each in (theta, other))
    # These kernels can be differentiated twice.
    logits, again = (kernels.exact(networks.outputs_function(each)) for each in (tried, module))
    try:
        found = logits(theta, images)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{name} fails on images of shape {image} ({type(error).__name__}: {error}): correct it"
        ) from error
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if shape != (3, classes):
        raise ValueError(f"{name} gives {shape} for 3 images: logits of shape (3, {classes}) are needed")
    if found.dtype != torch.float64:
        raise ValueError(
            f"{name} gives logits of type {found.dtype} for images and weights in double precision: do not convert them"
        )
    if not torch.isfinite(found).all():
        raise ValueError(f"{name} gives logits that are not finite for images and weights of usual size: correct it")
    if not torch.equal(found, logits(theta, images)):
        raise ValueError(f"{name} gives different logits for the same images: remove what is random")
    if not torch.equal(logits(other, images), again(other, images)):
        raise ValueError(f"{name} keeps a state between calls, which changes later logits: let it keep none")
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    try:
        gradient = grad(lambda parameters: (weights * logits(parameters, images)).sum())
        slopes = [vmap(lambda direction: jvp(gradient, (theta,), (direction,)))(d[None])[0][0] @ d for d in directions]
    except Exception as error:
        raise ValueError(
            f"torch.func cannot differentiate {name} twice ({error}): replace the operation that fails"
        ) from error
    if not gradient(theta).any():
        raise ValueError(f"{name} gives logits that do not depend on its weights: leave out detach and the like")
    for direction, slope in zip(directions, slopes):
        # Only first derivatives are compared, since kinks make finite differences of second derivatives meaningless.
        ahead, behind = ((weights * logits(theta + h * direction, images)).sum() for h in (STEP, -STEP))
        scale = (gradient(theta) * direction).norm()
        if abs(slope - (ahead - behind) / (2 * STEP)) > SLOPE_TOLERANCE * (abs(slope) + scale):
            raise ValueError(
                f"{name} has derivatives that differ from finite differences of its logits: leave out detach, item, "
                "no_grad, conversions to lower precision and backward functions of your own"
            )
    alone = torch.cat([logits(theta, images[i : i + 1]) for i in range(3)])
    if not torch.allclose(found, alone, rtol=1e-8, atol=1e-10 * float(found.abs().max())):
        raise ValueError(f"{name} mixes the images of a batch: logits of one image must not depend on others")
