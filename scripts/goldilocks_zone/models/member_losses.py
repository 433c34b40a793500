"""Losses of embeddings with separate weights for each member of an ensemble."""

import dataclasses
import functools
import operator

from torch import Tensor

from goldilocks_zone.models.embedding_losses import Vicreg
from goldilocks_zone.models.losses import Loss


class VicregOfMembers(Loss):
    """VICReg of m members of an ensemble, each with its own weights and ε.

    `weights` (m, 3) holds λ, μ and ν of each member, and `epsilons` (m,) its ε. These values replace the weights and ε
    of `criterion`; all other settings are those of `criterion`. Outputs are (m, n, 2e + k·r), in the layout that
    `embedding_losses` defines.
    """

    name, classifies = "vicreg", False

    def __init__(self, criterion: Vicreg, weights: Tensor, epsilons: Tensor):
        self._criterion, self._weights, self._epsilons = criterion, weights, epsilons

    def total(self, outputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """Total n (λ I + μ V + ν C) of each member, shape (m,), with the terms I, V and C that `Vicreg` defines."""
        own = dataclasses.replace(self._criterion, epsilon=self._epsilons[:, None, None])
        terms = (weight * term for weight, term in zip(self._weights.T, own.terms(outputs)))
        return outputs.shape[-2] * functools.reduce(operator.add, terms)

    def select(self, members: Tensor) -> "VicregOfMembers":
        """Restrict the loss to the members with the indices `members` (m',)."""
        return VicregOfMembers(self._criterion, self._weights[members], self._epsilons[members])
