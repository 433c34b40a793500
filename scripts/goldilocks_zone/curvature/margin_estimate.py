"""Margin estimate of Sabanayagam et al. (2023), from inputs aligned with the top eigenvector instead of the boundary.

Let v be the top eigenvector, g the gradient of the loss with the predicted class as label, and A = ⟨g, v⟩/|g| their
alignment. Gradient descent on inputs minimises (A² − 1)² from random starts. Of the training examples, two serve as
references: the one with the largest A and the one with the smallest. The estimate is the distance of the final input
from the closer of these two.

Letters: s networks, t starts for each, i entries of an input, D parameters.
"""

import functools
import operator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from goldilocks_zone.models import kernels
from goldilocks_zone.subspaces.constraints import split


@dataclass(frozen=True)
class Descent:
    """Options of gradient descent on inputs, as published except for the number of steps.

    rate: learning rate, reduced to a tenth from step `fall` on. decay: coefficient of the decay of the inputs, which is
    added to the gradient as in weight decay.
    """

    steps: int = 20_000
    rate: float = 0.01
    decay: float = 0.001
    fall: int = 5_000


@kernels.differentiating
def aligned_points(
    network: nn.Sequential, parameters: Tensor, eigenvectors: Tensor, starts: Tensor, descent: Descent = Descent()
) -> tuple[Tensor, Tensor]:
    """Move inputs by gradient descent towards points where the alignment A is 1 or −1 (see `alignment`).

    `starts` (s, t, i) has t inputs for each of s networks. Returns the final inputs (s, t, i), and A (s, t) there. The
    loss of the descent is (A² − 1)², with a decay of the inputs. All networks have the architecture of `network`, dense
    layers and elementwise activations. Each has its row of `parameters` (s, D), and its eigenvector in `eigenvectors`
    (s, D). A point where all units are dead has A = 0 and moves only by the decay. Raises ValueError for a network of
    other parts.
    """
    layers = network if isinstance(network, nn.Sequential) else [network]
    if any(next(each.parameters(), None) is not None for each in layers if not isinstance(each, nn.Linear)):
        raise ValueError(
            "the margin is estimated only for an nn.Sequential of dense layers and elementwise activations: set "
            "estimate_steps: 0 for other networks"
        )
    points = starts.detach().clone()
    for step in range(descent.steps):
        points.requires_grad_()
        loss = (alignment(network, parameters, eigenvectors, points).square() - 1).square().sum()
        (slope,) = torch.autograd.grad(loss, points)
        rate = descent.rate * (0.1 if step >= descent.fall else 1)
        points = points.detach() - rate * (slope + descent.decay * points.detach())
    reached = alignment(network, parameters, eigenvectors, points.clone().requires_grad_())
    return points, reached.detach()


def alignment(network: nn.Sequential, parameters: Tensor, eigenvectors: Tensor, points: Tensor) -> Tensor:
    """Alignments A = ⟨g, v⟩/|g| (s, t) at `points` (s, t, i), differentiable with respect to the points.

    g is the gradient of the loss at `parameters` (s, D) with the predicted class as label, and v the row of
    `eigenvectors` (s, D). The points must require gradients. Let a be the inputs and δ the adjoints of a layer, and V
    and c the parts of v in its weights and bias. Then ⟨g, v⟩ is the sum over layers of δᵀ(V a + c), and |g|² is the sum
    over layers of |δ|²(|a|² + 1). For a layer without a bias, c and the 1 are left out. `network` is as in
    `aligned_points`.
    """
    shapes = [each.shape for each in network.parameters()]
    own, along = (iter(split(each, shapes)) for each in (parameters, eigenvectors))
    outputs, preactivations, pushed, squares = points, [], [], []
    for layer in network:
        if not isinstance(layer, nn.Linear):
            outputs = outputs if isinstance(layer, nn.Flatten) else layer(outputs)
            continue
        weight, bias = next(own), next(own) if layer.bias is not None else None
        squares.append(outputs.square().sum(2) + (bias is not None))
        direction = outputs @ next(along).mT
        pushed.append(direction if bias is None else direction + next(along)[:, None])
        outputs = outputs @ weight.mT if bias is None else torch.baddbmm(bias[:, None], outputs, weight.mT)
        preactivations.append(outputs)
    predicted = outputs.argmax(2, keepdim=True)
    others = torch.softmax(outputs.scatter(2, predicted, -torch.inf), 2)
    weights = others.scatter(2, predicted, -others.sum(2, keepdim=True))  # p − ŷ up to a factor that cancels in A
    adjoints = torch.autograd.grad(outputs, preactivations, weights, create_graph=True)
    product = sum((delta * each).sum(2) for delta, each in zip(adjoints, pushed))
    square = functools.reduce(operator.add, (delta.square().sum(2) * each for delta, each in zip(adjoints, squares)))
    return product / square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()
