"""ReLU networks with softened kinks, to measure the contribution of kinks to curvature."""

import copy
import math
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from goldilocks_zone.curvature import arguments
from goldilocks_zone.models import chains, kernels, networks
from goldilocks_zone.models.problem import Array, Problem

OTHERS = {nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, networks.CentredSoftplus}  # activations of chains


@kernels.differentiating
def softened(problem: Problem, parameters: Array, sharpness: float) -> Problem:
    """The problem, with each ReLU of its network replaced by the smooth softplus(βz)/β − ln 2/β.

    In layer l, β is `sharpness` / rms(z_l), where rms(z_l) is the root mean square of the layer's pre-activations at
    the `parameters` (D,), over all examples. In units of rms(z_l), the softplus thus has the same shape in every layer
    and at every radius. Raises ValueError unless the network is a chain of known layers whose activations are all ReLU.
    """
    given = arguments.prepared(problem, parameters, labelled=False)
    if not isinstance(given.network, nn.Module) or not _has_only_relu(given, given.network):
        raise ValueError(
            "kinks can be softened only in a chain of torch's layers with no activation but ReLU: give such a network"
        )
    softer = copy.deepcopy(given.network)
    deviations = _root_mean_squares(given, softer)
    for parent in list(softer.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, networks.CentredSoftplus(sharpness / deviations[child]))
    return replace(problem, network=softer)


def _has_only_relu(given: arguments.Prepared, module: nn.Module) -> bool:
    """True if `module`, the network of `given`, is a chain with ReLU and no other activation but the identity."""
    chain = chains.matching(module, [given.theta], given.first)
    kinds = {type(each) for each in module.modules()} if chain else set()
    return nn.ReLU in kinds and kinds.isdisjoint(OTHERS)


def _root_mean_squares(given: arguments.Prepared, module: nn.Module) -> dict[nn.ReLU, float]:
    """Root mean square of the inputs of each ReLU of `module`, at the parameters of `given`.

    The mean is over all examples of `given`, and over all calls of a ReLU that is called several times.
    """
    squares = {each: [] for each in module.modules() if isinstance(each, nn.ReLU)}
    logits = networks.logits_function(module)

    def keep(relu: nn.ReLU, taken: tuple[torch.Tensor]) -> None:
        squares[relu].append((taken[0].square().mean().item(), len(taken[0])))

    hooks = [each.register_forward_pre_hook(keep) for each in squares]
    with torch.no_grad():
        for inputs, _ in given:
            logits(given.theta, inputs)
    for each in hooks:
        each.remove()
    weighted = {each: zip(*found) for each, found in squares.items()}
    return {each: math.sqrt(np.average(values, weights=counts)) for each, (values, counts) in weighted.items()}
