"""Levels of a hierarchical JEPA (joint-embedding predictive architecture), each a joint embedding with actions.

Level 1 encodes observations. Level 2 encodes means of a few successive embeddings of level 1, and its predictor takes
sums of actions. Letters: m members, n examples, e dimensions of an embedding, p of an observation, a of an action, r
unrolled predictions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from goldilocks_zone.models import jepa, labels, networks
from goldilocks_zone.models.embedding_losses import Vicreg
from goldilocks_zone.models.jepa import JointEmbedding, Members, Sizes

UPPER = "fc-64-relu"  # the encoder of level 2


class Unrolled(JointEmbedding):
    """Joint embedding that predicts r steps ahead, each step from the previous prediction.

    `weights` are the weights of the squared errors of the predictions 1, 2, …, r steps ahead. They are divided by the
    first of them, so only their ratios count.
    """

    def __init__(self, encoder: nn.Module, sizes: Sizes, weights: Sequence[float]):
        super().__init__(encoder, sizes.observation, jepa.Prediction(sizes, jepa.Latent()))
        self._action, self._roots = sizes.action, [(weight / weights[0]) ** 0.5 for weight in weights]

    def forward(self, packed: Tensor) -> Tensor:
        """Outputs (…, n, 2e + r·e) for packed inputs (…, n, (1 + r) p + r·a).

        The inputs are an observation x, the r observations after it, and the r actions between these. The outputs are
        the embedding s_x, the embedding s_y of the first observation after x, and one residual of r parts, whose square
        is the weighted sum of the squared errors.
        """
        steps = len(self._roots)
        seen = packed[..., : (1 + steps) * self.observation].unflatten(-1, (1 + steps, -1))
        actions = packed[..., (1 + steps) * self.observation :].unflatten(-1, (steps, self._action))
        # Transposed so that frames form one batch.
        embedded = jepa.through(self.encoder, seen.transpose(-3, -2).flatten(-3, -2))
        embedded = embedded.unflatten(-2, (1 + steps, -1)).unbind(-3)
        predicted, residuals = embedded[0], []
        for step, root in enumerate(self._roots):
            predicted = self.head.predictor(predicted, actions[..., step, :])[..., 0, :]
            residuals.append(root * (predicted - embedded[step + 1]))
        return torch.cat([embedded[0], embedded[1], *residuals], -1)


def level(encoder: str, sizes: Sizes, weights: Sequence[float] = (1,)) -> JointEmbedding:
    """Build the joint embedding of one level, in double precision; `encoder` is the network label of its encoder.

    With several `weights`, the joint embedding is `Unrolled` and predicts one step for each weight. With a single
    weight, it predicts one step ahead, and the value of the weight has no effect.
    """
    network = labels.parse_network(encoder)
    if len(weights) == 1:
        return jepa.build(network, sizes)
    return Unrolled(networks.build(network, (1, 1, sizes.observation), sizes.embedding), sizes, weights).double()


def predictor(sizes: Sizes) -> JointEmbedding:
    """Build a joint embedding with a predictor, for observations that are embeddings already.

    The encoder is the identity, so observations have `sizes.embedding` entries. The only parameters are those of the
    predictor, in double precision.
    """
    sizes = sizes._replace(observation=sizes.embedding)
    return JointEmbedding(nn.Sequential(), sizes.observation, jepa.Prediction(sizes, jepa.Latent())).double()


def prediction_loss(size: int) -> Vicreg:
    """VICReg loss of the prediction error alone, for embeddings of `size` dimensions that are not trained."""
    return Vicreg(size, invariance=1, variance=0, covariance=0)


def pooled(windows: Tensor) -> Tensor:
    """Mean (…, e) of the embeddings of t successive frames, `windows` (…, t, e)."""
    return windows.mean(-2)


def encoded(members: Members, observations: Tensor) -> Tensor:
    """Embeddings (m, …, e) of observations (m, …, p), by the encoder of each of the `members`."""
    return members.encode(observations.flatten(1, -2)).unflatten(1, observations.shape[1:-1])


def predicted(members: Members, embeddings: Tensor, actions: Tensor) -> Tensor:
    """Next embeddings (m, n, e), predicted by each of the `members` from embeddings (m, n, e) and actions (m, n, a)."""
    return members.predict(embeddings, actions)[..., 0, :]
