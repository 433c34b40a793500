"""Losses that the package does not have: losses of single examples, and one that couples examples."""

import torch
from torch import Tensor

from goldilocks_zone.models.losses import Loss, SeparateLoss


class Logistic(SeparateLoss):
    """One binary cross-entropy for each class, defined by its values alone."""

    name = "logistic"

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        signs = 2 * torch.nn.functional.one_hot(labels, outputs.shape[-1]) - 1
        return torch.nn.functional.softplus(-signs * outputs).sum(-1)


class Bounded(SeparateLoss):
    """A loss with real targets (n, k) and a second derivative that is negative far from them."""

    name = "bounded"
    classifies = False

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        distance = (outputs - labels).square().sum(-1)
        return distance / (1 + distance)


class Decorrelation(Loss):
    """Squared covariances of different outputs over the batch, and distances of variances from 1; takes no labels."""

    name = "decorrelation"
    classifies = False

    def total(self, outputs: Tensor, labels: Tensor) -> Tensor:
        n, k = outputs.shape[-2:]
        centred = outputs - outputs.mean(-2, keepdim=True)
        covariance = centred.mT @ centred / (n - 1)
        return n * (covariance - torch.eye(k).to(covariance)).square().sum((-2, -1))
