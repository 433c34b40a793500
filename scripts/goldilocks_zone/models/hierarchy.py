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

    `weights` holds the weights of the squared errors, 1 to r steps ahead. They are divided by the first weight, so only
    their ratios count.
    """

    def __init__(self, encoder: nn.Sequential, sizes: Sizes, weights: Sequence[float]):
        super().__init__(encoder, sizes.observation, jepa.Prediction(sizes, jepa.Latent()))
        self._action, self._roots = sizes.action, [(weight / weights[0]) ** 0.5 for weight in weights]

    def forward(self, packed: Tensor) -> Tensor:
        """Outputs (…, n, 2e + r·e) for packed inputs (…, n, (1 + r) p + r·a).

        The inputs of an example are an observation x, the next r observations, and the r actions between them. The
        outputs are the embedding s_x of x, the embedding s_y of the first observation after x, and one residual of r ·
        e entries. The squared norm of the residual is the weighted sum of the squared errors.
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

    With r > 1 `weights`, it is an `Unrolled` joint embedding, which predicts r steps ahead. With one weight, it
    predicts one step ahead, and the value of the weight has no effect.
    """
    network = labels.parse_network(encoder)
    if len(weights) == 1:
        return jepa.build(network, sizes)
    return Unrolled(networks.build(network, (1, 1, sizes.observation), sizes.embedding), sizes, weights).double()


def predictor(sizes: Sizes) -> JointEmbedding:
    """Build a joint embedding for observations that are embeddings already: its encoder is the identity.

    Observations must have `sizes.embedding` entries; `sizes.observation` is ignored. The only parameters are those of
    the predictor, in double precision.
    """
    sizes = sizes._replace(observation=sizes.embedding)
    return JointEmbedding(nn.Sequential(), sizes.observation, jepa.Prediction(sizes, jepa.Latent())).double()


def prediction_loss(size: int) -> Vicreg:
    """VICReg loss with its invariance term alone, the prediction error, for fixed embeddings of `size` dimensions."""
    return Vicreg(size, invariance=1, variance=0, covariance=0)


def pooled(windows: Tensor) -> Tensor:
    """Mean (…, e) over the t embeddings in each of the `windows` (…, t, e), one embedding for each frame."""
    return windows.mean(-2)


def encoded(members: Members, observations: Tensor) -> Tensor:
    """Embeddings (m, …, e) of `observations` (m, …, p), by the encoder of each of the m `members`."""
    return members.encode(observations.flatten(1, -2)).unflatten(1, observations.shape[1:-1])


def predicted(members: Members, embeddings: Tensor, actions: Tensor) -> Tensor:
    """Next embeddings (m, n, e) that each of `members` predicts from embeddings (m, n, e) and actions (m, n, a)."""
    return members.predict(embeddings, actions)[..., 0, :]
