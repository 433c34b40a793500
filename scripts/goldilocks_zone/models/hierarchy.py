"""Levels of an H-JEPA: an encoder and a predictor with actions, whose predictions may be unrolled.

Level 2 encodes means of a few successive embeddings of level 1, and predicts with sums of actions. Letters: m members,
n examples, e numbers of an embedding, p of an observation, a of an action, r unrolled predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from goldilocks_zone.models import labels, networks
from goldilocks_zone.models.embedding_losses import Vicreg

HIDDEN = "fc-64-relu"  # of predictors and of the encoder of level 2


class Level(nn.Module):
    """Encoder of p numbers, and the predictor s + MLP(s, action), whose own predictions it predicts on.

    weights: of the squared errors of predictions 1, 2, … r steps ahead, over that of the first.
    """

    def __init__(self, encoder: nn.Module, predictor: nn.Module, sizes: tuple[int, int], weights: Sequence[float] = (1,)):
        super().__init__()
        self.encoder, self.predictor = encoder, predictor
        self._observation, self._action = sizes
        self._roots = [(weight / weights[0]) ** 0.5 for weight in weights]

    def predict(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predicted embeddings (n, e) after actions (n, a)."""
        return embeddings + self.predictor(torch.cat([embeddings, actions], -1))

    def forward(self, packed: Tensor) -> Tensor:
        """Outputs (n, 2e + re) of x, the r next observations, and the actions between them, packed as (n, …).

        They are s_x, s_y of the first next one, and a residual of r parts whose squares add up with their weights.
        """
        steps = len(self._roots)
        seen = packed[:, : (1 + steps) * self._observation].unflatten(1, (1 + steps, self._observation))
        actions = packed[:, (1 + steps) * self._observation :].unflatten(1, (steps, self._action))
        embedded = self.encoder(seen.flatten(0, 1)).unflatten(0, (-1, 1 + steps))
        predicted, residuals = embedded[:, 0], []
        for step, root in enumerate(self._roots):
            predicted = self.predict(predicted, actions[:, step])
            residuals.append(root * (predicted - embedded[:, step + 1]))
        return torch.cat([embedded[:, 0], embedded[:, 1], *residuals], 1)


def level(encoder: str, sizes: tuple[int, int, int], weights: Sequence[float] = (1,)) -> Level:
    """A level whose encoder has a label, with `sizes` of observations, embeddings and actions."""
    observation, embedding, action = sizes
    modules = (_dense(encoder, observation, embedding), _dense(HIDDEN, embedding + action, embedding))
    return Level(*modules, (observation, action), weights)


def predictor(sizes: tuple[int, int]) -> Level:
    """A predictor alone, of given embeddings, with `sizes` of embeddings and actions."""
    embedding, action = sizes
    return Level(nn.Identity(), _dense(HIDDEN, embedding + action, embedding), (embedding, action))


def _dense(label: str, inputs: int, outputs: int) -> nn.Module:
    return networks.build(labels.parse_network(label), (inputs,), outputs)


def prediction_loss(size: int) -> Vicreg:
    """The error of predictions alone, of embeddings that do not change."""
    return Vicreg(size, invariance=25, variance=0, covariance=0)


def pooled(windows: Tensor) -> Tensor:
    """Mean (…, e) of embeddings of successive frames (…, t, e)."""
    return windows.mean(-2)


@dataclass(frozen=True)
class Members:
    """A level of m members, with parameters (m, D) in the order of the module's."""

    module: Level
    parameters: Tensor

    def encode(self, observations: Tensor) -> Tensor:
        """Embeddings (m, …, e) of observations (m, …, p), without derivatives."""
        with torch.no_grad():
            found = vmap(lambda own, x: functional_call(self.module.encoder, own, (x,)))(
                self._of("encoder."), observations.flatten(1, -2)
            )
        return found.unflatten(1, observations.shape[1:-1])

    def predict(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predicted embeddings (m, n, e) of embeddings (m, n, e) and actions (m, n, a), without derivatives."""
        with torch.no_grad():
            moved = vmap(lambda own, x: functional_call(self.module.predictor, own, (x,)))(
                self._of("predictor."), torch.cat([embeddings, actions], -1)
            )
        return embeddings + moved

    def _of(self, part: str) -> dict[str, Tensor]:
        """Parameters (m, …) of a part, by their names in it."""
        named = list(self.module.named_parameters())
        pieces = self.parameters.split([each.numel() for _, each in named], 1)
        return {
            name.removeprefix(part): piece.unflatten(1, each.shape)
            for (name, each), piece in zip(named, pieces)
            if name.startswith(part)
        }
