"""ReLU networks whose kinks are softened, to tell what kinks add to curvature."""

import copy

import torch
from torch import nn

from goldilocks_zone.curvature import arguments
from goldilocks_zone.curvature.arguments import Array
from goldilocks_zone.models import chains, layers, modes, networks


@modes.differentiating
def softened(module: nn.Module, theta: Array, inputs: Array, sharpness: float) -> nn.Module:
    """`module` with each ReLU replaced by a softplus of β_l = sharpness / rms(z_l).

    The root mean square is that of the layer's pre-activations at the parameters θ (D,) over the `inputs` (n, …), so
    that every layer and every radius sees the same shape. Raises ValueError if the module has other layers than the
    curvature engine knows, or with another forward pass, or no ReLU.
    """
    module, theta, inputs, _ = arguments.problem(module, theta, inputs)
    chain = chains.matching(module, [theta], inputs)
    kinds = [type(each) for each in module.modules()]
    if chain is None or nn.ReLU not in kinds or any(kind in kinds for kind in (nn.Tanh, nn.Softplus, nn.LeakyReLU)):
        raise ValueError("only networks of known layers whose activations are all ReLU can have their kinks softened")
    widths = iter([sharpness / rms for rms in _deviations(chains.forward(chain, theta, inputs)[1])])
    softer = copy.deepcopy(module)
    for parent in list(softer.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, networks.CentredSoftplus(next(widths)))
    return softer


def _deviations(kept: list[layers.Kept]) -> list[float]:
    """Root mean square of each activation's inputs, in order."""
    found = []
    for each in kept:
        found += _deviations(each.inner)
        if isinstance(each.layer, layers.Activation):
            found.append(float(torch.sqrt(each.forward.square().mean())))
    return found
