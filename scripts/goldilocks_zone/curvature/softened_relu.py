"""ReLU networks with softened kinks, to measure how much kinks add to curvature."""

import copy
from dataclasses import replace

import torch
from torch import nn

from goldilocks_zone.curvature import arguments
from goldilocks_zone.models import chains, layers, modes, networks
from goldilocks_zone.models.problem import Array, Problem


@modes.differentiating
def softened(problem: Problem, parameters: Array, sharpness: float) -> Problem:
    """The problem with each ReLU of its network replaced by a softplus of β_l = sharpness / rms(z_l).

    The root mean square is that of the layer's pre-activations at the parameters (D,) over all examples, so that every
    layer and every radius sees the same shape. Raises ValueError if the module has other layers than the curvature
    engine knows, or with another forward pass, or no ReLU.
    """
    given = arguments.prepared(problem, parameters, labelled=False)
    module = given.network
    chain = chains.matching(module, [given.theta], given.batches.first)
    kinds = [type(each) for each in module.modules()] if chain else []
    if nn.ReLU not in kinds or any(kind in kinds for kind in (nn.Tanh, nn.Softplus, nn.LeakyReLU)):
        raise ValueError("only networks of known layers whose activations are all ReLU can have their kinks softened")
    squares = 0.0
    for inputs, _ in given.batches:
        share = len(inputs) / given.batches.count
        squares = squares + share * _mean_squares(chains.forward(chain, given.theta, inputs)[1])
    widths = iter([sharpness / float(rms) for rms in torch.sqrt(squares)])
    softer = copy.deepcopy(module)
    for parent in list(softer.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, networks.CentredSoftplus(next(widths)))
    return replace(problem, network=softer)


def _mean_squares(kept: list[layers.Kept]) -> torch.Tensor:
    """Mean square of each activation's inputs, in order."""
    return torch.stack(
        [each.forward.square().mean() for each in layers.flat(kept) if isinstance(each.layer, layers.Activation)]
    )
