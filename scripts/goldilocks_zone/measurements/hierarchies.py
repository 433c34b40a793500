"""Training of joint-embedding predictors of two levels, where each member of an ensemble has its own data.

Level 1 embeds single frames (observations), and predicts the embedding after one action. Level 2 embeds the mean of
POOLED successive embeddings of level 1, and predicts its embedding after a span, the number of steps in the study's key
`span`, from the sum of the actions in between. Actions enter as features, see `worlds.World`.

Letters: m members (draws), n examples, t frames, p dimensions of an observation, a of an action, e of an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.data import two_rooms, world_shapes, worlds
from goldilocks_zone.measurements import blocks, checkpoints, jepa_arms
from goldilocks_zone.measurements.jepa_planning import PlanningStudy
from goldilocks_zone.models import hierarchy, jepa
from goldilocks_zone.models.embedding_losses import Vicreg
from goldilocks_zone.models.jepa import JointEmbedding, Members, Sizes
from goldilocks_zone.models.planner_labels import POOLED
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.training import ensembles, loop

INVARIANCE = 25.0  # weight of level 2's prediction errors
FALLING = 0.3  # share of the steps over which the rate falls to 0
TIMES = {"action": -1, "step": -2}  # time axis of actions, by name


def world_of(study: PlanningStudy, dataset: str, seed: int) -> worlds.Acting:
    """The world named `dataset`, ring or two_rooms, with the options that the study sets.

    `seed` is the seed of the run.
    """
    if dataset == "ring":
        return worlds.Ring(seed, noise=study.noise, reach=study.reach)
    return two_rooms.TwoRooms(seed)


def summed(world: worlds.Acting, between: worlds.Arrays) -> np.ndarray:
    """Features (…, a) of the sum of t successive actions, as `world.features` defines them.

    `between` maps names to variables between frames. It contains the actions as `action` (…, t), which are angles, or
    as `step` (…, t, 2).
    """
    name = next(name for name in TIMES if name in between)
    return world.features({name: between[name].sum(TIMES[name])})


@dataclass(frozen=True)
class Hierarchy:
    """Trained joint embeddings: `first` of level 1, `second` of level 2 and, optionally, `direct`.

    `direct` is a predictor for embeddings of level 1. It predicts a whole span of steps at once.
    """

    first: Members
    second: Members
    direct: Members | None

    def below(self, observations: Tensor) -> Tensor:
        """Embeddings (m, …, e) on level 1 of observations (m, …, p)."""
        return hierarchy.encoded(self.first, observations)

    def above(self, windows: Tensor) -> Tensor:
        """Embeddings (m, …, e) on level 2 of `windows` (m, …, t, e), each of t successive embeddings of level 1."""
        return hierarchy.encoded(self.second, hierarchy.pooled(windows))

    def of(self, number: int) -> "Hierarchy":
        """Hierarchy that contains only the member with index `number`, so that m = 1."""

        def one(level: Members) -> Members:
            return Members(level.module, level.parameters[number : number + 1])

        return Hierarchy(one(self.first), one(self.second), None if self.direct is None else one(self.direct))


class Trainer:
    """Trains all levels at one radius, for all draws of a block, with a checkpoint for each level.

    `radius` is a factor on the initialisation of level 1. `number` is the index of the trainer within its job. The
    numbers of its checkpoints follow from this index.
    """

    def __init__(self, work: blocks.Work, study: PlanningStudy, radius: float, number: int):
        self.work, self.study, self.radius = work, study, radius
        self.world = world_of(study, work.job.dataset, work.block.seed)
        self.like = torch.empty(0, device=work.device)
        self._phases = 3 * number

    def hierarchy(self) -> Hierarchy:
        """Train level 1, and then level 2 on embeddings of level 1.

        If the study sets `direct`, also train the direct predictor, on embeddings of level 1.
        """
        study, world = self.study, world_shapes.known(self.work.job.dataset)
        lower = Sizes(world.observation, world.action, study.embedding)
        upper = Sizes(study.embedding, world.action, study.upper_embedding)
        module = hierarchy.level(self.work.job.network, lower, study.step_weights)
        first = self._trained(module, self._vicreg(study.embedding, study.step_weights[0]), self.frames, study.steps)
        module, loss = hierarchy.level(hierarchy.UPPER, upper), self._vicreg(study.upper_embedding, INVARIANCE)
        second = self._trained(module, loss, lambda step: self.windows(first, step), study.upper_steps)
        if not study.direct:
            return Hierarchy(first, second, None)
        module, loss = hierarchy.predictor(lower), hierarchy.prediction_loss(study.embedding)
        direct = self._trained(module, loss, lambda step: self.apart(first, step), study.upper_steps)
        return Hierarchy(first, second, direct)

    def frames(self, step: int) -> Tensor:
        """Inputs (m, n, t·p + (t − 1)·a) of level 1 at a training step.

        An input holds t successive frames side by side, and after them the features of the t − 1 actions in between.
        """
        drawn = self._drawn(step, 1 + len(self.study.step_weights), "level 1")
        return self._packed(drawn.seen, drawn.actions)

    def windows(self, first: Members, step: int) -> Tensor:
        """Inputs (m, n, 2e + a) of level 2 at a training step.

        An input holds the mean embeddings of two windows of POOLED frames each, which are a span apart. The encoders of
        level 1, in `first`, embed the frames. After them come the features of the sum of the last `span` actions.
        """
        drawn = self._drawn(step, POOLED + self.study.span, "level 2")
        seen = np.stack([drawn.seen[:, :, :POOLED], drawn.seen[:, :, -POOLED:]], 2)
        return self._packed(hierarchy.pooled(hierarchy.encoded(first, self._tensor(seen))), self._summed(drawn))

    def apart(self, first: Members, step: int) -> Tensor:
        """Inputs (m, n, 2e + a) of the direct predictor at a training step.

        An input holds the embeddings of two frames that are a span apart. The encoders of level 1, in `first`, embed
        the frames. After them come the features of the sum of the actions in between.
        """
        drawn = self._drawn(step, 1 + self.study.span, "direct")
        seen = np.stack([drawn.seen[:, :, 0], drawn.seen[:, :, -1]], 2)
        return self._packed(hierarchy.encoded(first, self._tensor(seen)), self._summed(drawn))

    def _drawn(self, step: int, frames: int, purpose: str) -> worlds.Frames:
        return worlds.frames(self.world, self.work.block.draws, step, (self.study.batch, frames), purpose)

    def _summed(self, drawn: worlds.Frames) -> np.ndarray:
        """Features (m, n, a) of the sum of the last actions in each of the sequences `drawn`, one span of actions."""
        span = self.study.span
        return summed(self.world, {name: each[:, :, -span:] for name, each in drawn.between.items()})

    def _tensor(self, array: np.ndarray | Tensor) -> Tensor:
        return torch.as_tensor(array).to(self.like)

    def _packed(self, *parts: np.ndarray | Tensor) -> Tensor:
        return torch.cat([self._tensor(each).flatten(2) for each in parts], 2)

    def _vicreg(self, size: int, invariance: float) -> Vicreg:
        return Vicreg(size, invariance, self.study.variance, self.study.covariance)

    def _trained(self, module: JointEmbedding, loss: Vicreg, packed: Callable[[int], Tensor], steps: int) -> Members:
        self._phases += 1
        starts = self._starts(module)
        nothing = torch.empty(len(starts), self.study.batch, 0, device=self.like.device)
        options = ensembles.Options(
            steps=steps,
            batch=None,
            rates=torch.full((len(starts),), self.study.rate, dtype=torch.float64),
            own_examples=True,
            fresh=lambda step: (packed(step), nothing),
            rate_at=jepa_arms.decay(steps, FALLING),
        )
        module = module.to(self.like)
        shapes = [each.shape for each in module.parameters()]
        names = [self.work.stream_name("batches", draw) for draw in self.work.block.draws]
        subset = constraints.full(starts, shapes, fixed=False)
        ensemble = ensembles.Ensemble(Problem(module, packed(0), nothing, loss), subset, options, names)
        checkpoint = checkpoints.checkpoint(self.work, self.study, {}, self._phases)
        loop.train(ensemble, [steps], lambda *_: {}, checkpoint)
        return Members(module, ensemble.coordinates)

    def _starts(self, module: JointEmbedding) -> Tensor:
        """Initial parameters (m, D) of `module` for all draws.

        The parameters of level 1 are multiplied by the radius.
        """
        level, block = (self._phases - 1) % 3 + 1, self.work.block
        streams = (self.work.stream("initialisation", f"level {level}", draw) for draw in block.draws)
        points = np.stack([jepa.initial(module, self.study.initialisation, each) for each in streams])
        return torch.as_tensor(points * (self.radius if level == 1 else 1)).to(self.like)
