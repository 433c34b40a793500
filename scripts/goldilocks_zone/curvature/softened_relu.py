"""ReLU networks with softened kinks, to measure the contribution of kinks to curvature."""

import copy
from dataclasses import replace

import torch
from torch import nn

from goldilocks_zone.curvature import arguments
from goldilocks_zone.models import chains, kernels, layers, networks
from goldilocks_zone.models.problem import Array, Problem


@kernels.differentiating
def softened(problem: Problem, parameters: Array, sharpness: float) -> Problem:
    """The problem with each ReLU of its network replaced by softplus(β_l z)/β_l − ln 2/β_l, β_l = sharpness / rms(z_l).

    rms(z_l) is the root mean square of the layer's pre-activations at the parameters (D,), over all examples. Relative
    to it, the softplus thereby has the same shape in every layer and at every radius. Raises ValueError unless the
    network is a chain of known layers whose activations are all ReLU.
    """
    given = arguments.prepared(problem, parameters, labelled=False)
    module = given.network
    chain = chains.matching(module, [given.theta], given.first)
    kinds = [type(each) for each in module.modules()] if chain else []
    if nn.ReLU not in kinds or any(kind in kinds for kind in (nn.Tanh, nn.Softplus, nn.LeakyReLU)):
        raise ValueError(
            "kinks can be softened only in a chain of torch's layers with no activation but ReLU: give such a network"
        )
    squares = 0.0
    for inputs, _ in given:
        kept = layers.flat(chains.forward(chain, given.theta, inputs)[1])
        means = [each.forward.square().mean() for each in kept if isinstance(each.layer, layers.Activation)]
        squares = squares + len(inputs) / given.count * torch.stack(means)
    widths = iter([sharpness / float(rms) for rms in torch.sqrt(squares)])
    softer = copy.deepcopy(module)
    for parent in list(softer.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, networks.CentredSoftplus(next(widths)))
    return replace(problem, network=softer)
