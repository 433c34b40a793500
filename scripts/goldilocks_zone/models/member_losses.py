"""Losses of embeddings with separate weights for each member of an ensemble."""

import dataclasses

from torch import Tensor

from goldilocks_zone.models.embedding_losses import Vicreg
from goldilocks_zone.models.losses import Loss


class VicregOfMembers(Loss):
    """VICReg of m members: a `criterion` whose weights and ε each member replaces by its own.

    weights (m, 3): λ, μ and ν; epsilons (m,). Outputs are (m, n, 2e + k·r), totals (m,).
    """

    name, classifies = "vicreg", False

    def __init__(self, criterion: Vicreg, weights: Tensor, epsilons: Tensor):
        self._criterion, self._weights, self._epsilons = criterion, weights, epsilons

    def total(self, outputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """n (λ I + μ V + ν C), shape (m,)."""
        own = dataclasses.replace(self._criterion, epsilon=self._epsilons[:, None, None])
        return outputs.shape[-2] * sum(self._weights[:, i] * term for i, term in enumerate(own.terms(outputs)))

    def select(self, members: Tensor) -> "VicregOfMembers":
        """Restrict the loss to some members (m',)."""
        return VicregOfMembers(self._criterion, self._weights[members], self._epsilons[members])
