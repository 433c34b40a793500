"""Planning with learnt models: search for actions by the cross-entropy method, with or without sub-goals of level 2.

Letters: m members (training seeds), n starts, s samples, h steps, a dimensions of an action, e of a state. Plans for
all members and starts are made in parallel and independently. Actions are features: vectors in the unit disc, where
length 1 is the longest step. An action of level 2 is the sum of the actions between two states of level 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.models.planner_labels import POOLED, ROUNDS, SAMPLES, SUBGOALS, Flat, Hierarchical

Step = Callable[[Tensor, Tensor], Tensor]
LEAST_KEPT = 4  # smallest number of samples that a round keeps; the standard deviation of fewer is meaningless
DEVIATION = 0.5  # standard deviation of actions' entries in the first round, in units of `reach`, on both levels


class Counted:
    """Predictor `step`, wrapped so that `evaluations` counts the states for which it has been called, over all calls.

    The predictor maps states (m, n, e) and actions (m, n, a) to the next states (m, n, e).
    """

    def __init__(self, step: Step):
        self._step, self.evaluations = step, 0

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        self.evaluations += states.shape[:-1].numel()
        return self._step(states, actions)


def unrolled(step: Step, states: Tensor, actions: Tensor) -> Tensor:
    """States (m, n, s, h, e) after each of h successive `actions` (m, n, s, h, a), starting from `states` (m, n, e).

    `step` maps states (m, n · s, e) and actions (m, n · s, a) to the next states.
    """
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
    """Search by the cross-entropy method for `steps` successive actions of length at most `reach`.

    Each of the `rounds` draws `samples` sequences of Gaussian actions. In the first round, the mean is zero and the
    standard deviation DEVIATION · reach. In each later round, both are those of the best sequences of the round before:
    the best quarter, but not fewer than LEAST_KEPT.
    """

    steps: int
    samples: int = SAMPLES
    reach: float = 1.0
    rounds: int = ROUNDS

    def noise(self, streams: Sequence[np.random.Generator], starts: int, like: Tensor) -> Tensor:
        """Draw the standard normal numbers (rounds, m, n, s, h, 2) that the method `best` needs, for n = `starts`.

        The numbers of each member come from its own stream in `streams`. Precision and device are those of `like`.
        """
        shape = self.rounds, starts, self.samples, self.steps, 2
        return torch.as_tensor(np.stack([each.standard_normal(shape, np.float32) for each in streams], 1)).to(like)

    def best(self, cost: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
        """Run the search; returns the actions (m, n, h, a) of least cost among the samples of all rounds.

        The function `cost` maps actions (m, n, s, h, a) to costs (m, n, s). Costs that are NaN count as infinite.
        `noise` holds the random numbers that the method `noise` returns.
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

    first: dynamics of level 1, learnt or true. second: predictor of level 2. embed: map from states of `first` to
    embeddings of level 1. above: map from windows (…, POOLED, e) of embeddings of level 1 to embeddings of level 2.
    way: map from states (m, n, …, 2) of the true dynamics, and goals (m, n, 2), to the exact lengths of the paths
    between them; None if unknown.
    """

    first: Step
    second: Step
    embed: Callable[[Tensor], Tensor]
    above: Callable[[Tensor], Tensor]
    way: Callable[[Tensor, Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Place:
    """Starts or goals of plans: as states of the dynamics of level 1, and as embeddings of levels 1 and 2.

    `state`, `first` and `second` are (m, n, e), each with a dimension e of its own.
    """

    state: Tensor
    first: Tensor
    second: Tensor


def squared_distance(embeddings: Tensor, goals: Tensor) -> Tensor:
    """Squared distances (m, n, s, h) between embeddings (m, n, s, h, e) and the goals' embeddings (m, n, e)."""
    return (embeddings - goals[:, :, None, None]).square().sum(-1)


def windows(path: Tensor) -> Tensor:
    """Cut a path (m, n, s, h, e) into successive windows (m, n, s, h/POOLED, POOLED, e), which do not overlap."""
    return path.unflatten(3, (-1, POOLED))


def over_path(costs: Tensor, end: bool) -> Tensor:
    """Costs (m, n, s) of paths, from the `costs` (m, n, s, h) of their states: the last one if `end`, else the mean.

    The mean rewards early arrival. If only the last state counts, a planner may postpone its arrival at the goal with
    every new plan.
    """
    return costs[..., -1] if end else costs.mean(-1)


def flat(
    planner: Flat, levels: Levels, start: Place, goal: Place, streams: Sequence[np.random.Generator]
) -> tuple[Tensor, float]:
    """Plan from `start` to `goal` by a search on level 1 alone.

    Returns the first POOLED actions of the m · n plans, (m, n, POOLED, a), and the number of evaluations of the
    dynamics per plan. `streams` has one random stream for each member.
    """
    each, way = POOLED if planner.held else 1, levels.way
    search, first = Search(planner.steps // each, planner.samples), Counted(levels.first)

    def cost(actions: Tensor) -> Tensor:
        path = unrolled(first, start.state, actions.repeat_interleave(each, 3))
        if planner.cost == "exact":
            assert way is not None  # Only studies of a world that knows its shortest ways have this cost.
            return over_path(way(path, goal.state), planner.end)
        seen = levels.embed(path)
        if planner.cost == "level1":
            return over_path(squared_distance(seen, goal.first), planner.end)
        return over_path(squared_distance(levels.above(windows(seen)), goal.second), planner.end)

    found = search.best(cost, search.noise(streams, start.state.shape[1], start.first))
    return found.repeat_interleave(each, 2)[:, :, :POOLED], first.evaluations / start.state.shape[:2].numel()


def hierarchical(
    planner: Hierarchical, levels: Levels, start: Place, goal: Place, streams: Sequence[np.random.Generator]
) -> tuple[Tensor, float]:
    """Plan from `start` to `goal`: search for sub-goals on level 2, and on level 1 for actions to the first sub-goal.

    Returns the POOLED actions of each of the m · n plans, (m, n, POOLED, a), and the number of evaluations of the
    models of both levels per plan. `streams` has one random stream for each member.
    """
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
        # Do not count this evaluation, which the search has already made and counted.
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
    """Call `flat` or `hierarchical`, depending on the type of `planner`, and return what it returns."""
    if isinstance(planner, Flat):
        return flat(planner, levels, start, goal, streams)
    return hierarchical(planner, levels, start, goal, streams)
