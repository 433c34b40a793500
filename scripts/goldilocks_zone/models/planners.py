"""Planning with learnt models: search for actions by the cross-entropy method, flat or by sub-goals of a second level.

Letters: m members (training seeds), n starts, s samples, h steps, a dimensions of an action, e of a state. Plans for
all members and starts are made in parallel and independently. Actions are features: vectors in the unit disc, where
length 1 is the longest step. Actions of level 2 are sums over the steps between two of its states.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.models.planner_labels import POOLED, ROUNDS, SAMPLES, SUBGOALS, Flat, Hierarchical

Step = Callable[[Tensor, Tensor], Tensor]
LEAST_KEPT = 4  # of the samples in a round; the spread of fewer is meaningless
DEVIATION = 0.5  # of an action's entries in the first round, relative to the longest action, on both levels


class Counted:
    """A predictor, from states (m, n, e) and actions (m, n, a) to the next states, that counts its evaluations."""

    def __init__(self, step: Step):
        self._step, self.evaluations = step, 0

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        self.evaluations += states.shape[:-1].numel()
        return self._step(states, actions)


def unrolled(step: Step, states: Tensor, actions: Tensor) -> Tensor:
    """States (m, n, s, h, e) after each of the actions (m, n, s, h, a), from states (m, n, e)."""
    samples, path = actions.shape[2], []
    states = states[:, :, None].expand(-1, -1, samples, -1).flatten(1, 2)
    for action in actions.flatten(1, 2).unbind(2):
        states = step(states, action)
        path.append(states)
    return torch.stack(path, 2).unflatten(1, (-1, samples))


def clipped(actions: Tensor, reach: float) -> Tensor:
    """Shorten actions (…, a) that are longer than `reach` to this length."""
    lengths = torch.linalg.vector_norm(actions, dim=-1, keepdim=True)
    return actions * (reach / lengths.clamp_min(reach))


@dataclass(frozen=True)
class Search:
    """Cross-entropy search for `steps` actions of length at most `reach`, starting from Gaussian ones around zero.

    Each round fits mean and deviation to the best quarter of its samples.
    """

    steps: int
    samples: int = SAMPLES
    reach: float = 1.0
    rounds: int = ROUNDS

    def noise(self, streams: Sequence[np.random.Generator], starts: int, like: Tensor) -> Tensor:
        """Standard normal numbers (rounds, m, n, s, h, 2), from a separate stream for each member."""
        shape = self.rounds, starts, self.samples, self.steps, 2
        return torch.as_tensor(np.stack([each.standard_normal(shape, np.float32) for each in streams], 1)).to(like)

    def best(self, cost: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
        """Actions (m, n, h, a) with the least cost seen; `cost` maps actions (m, n, s, h, a) to costs (m, n, s).

        Costs that are NaN count as infinite.
        """
        mean, deviation = torch.zeros_like(noise[0, :, :, :1]), DEVIATION * self.reach
        kept, found, least = max(LEAST_KEPT, self.samples // 4), mean, None
        for numbers in noise:
            actions = clipped(mean + deviation * numbers, self.reach)
            costs = torch.nan_to_num(cost(actions), nan=torch.inf, posinf=torch.inf)
            order = costs.topk(min(kept, self.samples), largest=False).indices[..., None, None]
            chosen = actions.take_along_dim(order, 2)
            mean, deviation = chosen.mean(2, keepdim=True), chosen.std(2, keepdim=True, correction=0)
            first, lowest = chosen[:, :, :1], costs.amin(2)
            found = first if least is None else torch.where((lowest < least)[..., None, None, None], first, found)
            least = lowest if least is None else torch.minimum(least, lowest)
        return found[:, :, 0]


@dataclass(frozen=True)
class Levels:
    """Models that a planner uses.

    first: dynamics of level 1. second: predictor of level 2. embed: map from states of `first` to embeddings of level
    1. above: map from windows (…, POOLED, e) of embeddings of level 1 to embeddings of level 2. way: exact path length
    from states (m, n, …, 2) of the true dynamics to the goals (m, n, 2).
    """

    first: Step
    second: Step
    embed: Callable[[Tensor], Tensor]
    above: Callable[[Tensor], Tensor]
    way: Callable[[Tensor, Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Place:
    """Starts or goals: states of level 1's dynamics (m, n, e), and their embeddings on levels 1 and 2."""

    state: Tensor
    first: Tensor
    second: Tensor


def squared_distance(embeddings: Tensor, goals: Tensor) -> Tensor:
    """|S − S_goal|² between embeddings (m, n, s, h, e) and the goals' embeddings (m, n, e)."""
    return (embeddings - goals[:, :, None, None]).square().sum(-1)


def windows(path: Tensor) -> Tensor:
    """Successive windows (m, n, s, h/POOLED, POOLED, e) of a path (m, n, s, h, e)."""
    return path.unflatten(3, (-1, POOLED))


def over_path(costs: Tensor, end: bool) -> Tensor:
    """Cost (m, n, s) of a path, from the costs of its states (m, n, s, h): the last one, or the mean.

    The mean rewards early arrival; with the last state alone, a planner may postpone its goal with every new plan.
    """
    return costs[..., -1] if end else costs.mean(-1)


def flat(
    planner: Flat, levels: Levels, start: Place, goal: Place, streams: Sequence[np.random.Generator]
) -> tuple[Tensor, float]:
    """The next POOLED actions (m, n, POOLED, a), and the number of evaluations of the dynamics per start."""
    each = POOLED if planner.held else 1
    search, first = Search(planner.steps // each, planner.samples), Counted(levels.first)

    def cost(actions: Tensor) -> Tensor:
        path = unrolled(first, start.state, actions.repeat_interleave(each, 3))
        if planner.cost == "exact":
            return over_path(levels.way(path, goal.state), planner.end)
        seen = levels.embed(path)
        if planner.cost == "level1":
            return over_path(squared_distance(seen, goal.first), planner.end)
        return over_path(squared_distance(levels.above(windows(seen)), goal.second), planner.end)

    found = search.best(cost, search.noise(streams, start.state.shape[1], start.first))
    return found.repeat_interleave(each, 2)[:, :, :POOLED], first.evaluations / start.state.shape[:2].numel()


def hierarchical(
    planner: Hierarchical, levels: Levels, start: Place, goal: Place, streams: Sequence[np.random.Generator]
) -> tuple[Tensor, float]:
    """The next POOLED actions (m, n, POOLED, a), and the number of evaluations of both predictors per start."""
    first, second = Counted(levels.first), Counted(levels.second)
    above = Search(SUBGOALS, reach=POOLED)
    below, starts = Search(POOLED), start.state.shape[1]

    def distant(actions: Tensor) -> Tensor:
        path = unrolled(second, start.second, actions)
        return over_path(squared_distance(path, goal.second), planner.end)

    numbers = above.noise(streams, starts, start.first)
    if planner.random:
        sums = clipped(DEVIATION * above.reach * numbers[0, :, :, 0], above.reach)
        subgoal = second(start.second, sums[:, :, 0])
    else:
        # Not counted: the search has evaluated it before.
        subgoal = levels.second(start.second, above.best(distant, numbers)[:, :, 0])

    def near(actions: Tensor) -> Tensor:
        path = unrolled(first, start.state, actions)
        return squared_distance(levels.above(windows(levels.embed(path))), subgoal)[..., -1]

    found = below.best(near, below.noise(streams, starts, start.first))
    evaluations = first.evaluations + second.evaluations
    return found, evaluations / start.state.shape[:2].numel()


def plan(
    planner: Flat | Hierarchical, levels: Levels, start: Place, goal: Place, streams: Sequence[np.random.Generator]
) -> tuple[Tensor, float]:
    """Plan by `flat` or `hierarchical`, depending on the planner."""
    return (flat if isinstance(planner, Flat) else hierarchical)(planner, levels, start, goal, streams)
