"""Episodes in the world two_rooms: a planner acts from starts towards goals, and plans anew after every POOLED steps.

The models are those of a hierarchy of two levels (see `hierarchies`), one for each of m members. The world is a square
with a wall, which has a door.
Letters: m members, n starts, p dimensions of an observation, a of an action, e of an embedding. Distances are in units
of the square's side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.data import two_rooms, world_shapes
from goldilocks_zone.models import planners
from goldilocks_zone.models.planner_labels import POOLED, Flat, Hierarchical
from goldilocks_zone.randomness import stream

STEPS, NEAR = 40, 0.1  # steps of an episode; distance at which a goal counts as reached
Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Knowledge:
    """Learnt models of m members, with which a planner can plan: encoders and predictors of both levels.

    encode: maps observations (m, …, p) to embeddings (m, …, e) of level 1. above: maps windows (m, …, POOLED, e) of
    embeddings of level 1 to embeddings of level 2. first, second: predictors of levels 1 and 2, which map embeddings
    (m, n, e) and actions (m, n, a) to the next embeddings.
    """

    encode: Encode
    above: Encode
    first: planners.Step
    second: planners.Step


@dataclass(frozen=True)
class Episodes:
    """Results of a planner's episodes, for n starts of each of m members.

    nearest: smallest distance (m, n) from the goal in an episode. reached_after: number of steps (m, n) until the goal
    was reached, infinite if it was not. calls: evaluations of the dynamics per start and plan.
    """

    nearest: np.ndarray
    reached_after: np.ndarray
    calls: float

    @property
    def success(self) -> np.ndarray:
        """Share (m,) of the starts from which the goal was reached."""
        return np.isfinite(self.reached_after).mean(1)


def acted(
    planner: Flat | Hierarchical,
    world: two_rooms.TwoRooms,
    knowledge: Knowledge,
    tasks: tuple[np.ndarray, np.ndarray],
    members: Sequence[int],
) -> Episodes:
    """Run the episodes of a planner in a `world`, from all starts of all members, with the models `knowledge`.

    `tasks` is a pair of the starts and the goals, places (m, n, 2) each. `members` are m numbers, which name the random
    streams of each member. An episode has STEPS steps. The planner sees frames, which are noisy observations. At the
    start of an episode, it sees POOLED frames at the start itself, and later the POOLED frames since the last plan. It
    knows the goal by POOLED frames that are observed there.
    """
    places, goals = tasks
    levels = _levels(planner, world, knowledge)
    rest = np.repeat(goals[:, :, None], POOLED, 2)
    goal = _place(planner, knowledge, goals, _seen(world, rest, members, "goal"), at_rest=True)
    frames = _seen(world, np.repeat(places[:, :, None], POOLED, 2), members, "start")
    distances, calls = [], []
    for time in range(0, STEPS, POOLED):
        start = _place(planner, knowledge, places, frames)
        streams = [stream(world.seed, "plan", world.name, member, time) for member in members]
        actions, evaluations = planners.plan(planner, levels, start, goal, streams)
        calls.append(evaluations)
        steps, path = actions.cpu().numpy() * two_rooms.LONGEST, []
        for each in range(POOLED):
            places = two_rooms.moved(places, steps[:, :, each])
            path.append(places)
            distances.append(np.linalg.norm(places - goals, axis=-1))
        frames = _seen(world, np.stack(path, 2), members, "frame", time)
    distances = np.stack(distances)
    reached = distances < NEAR
    after = np.where(reached.any(0), 1 + reached.argmax(0), np.inf)
    return Episodes(distances.min(0), after, float(np.mean(calls)))


def _seen(world: two_rooms.TwoRooms, places: np.ndarray, members: Sequence[int], *purpose: str | int) -> Tensor:
    """Noisy observations (m, …, p) of p pixels in a `world`, by m members at `places` (m, …, 2).

    Each member has a random stream of noise, which is named by `purpose` and the entry of `members`.
    """
    found = (world.at(own, *purpose, member) for own, member in zip(places, members))
    return torch.as_tensor(np.stack(list(found)))


def _place(
    planner: Flat | Hierarchical, knowledge: Knowledge, places: np.ndarray, frames: Tensor, at_rest: bool = False
) -> planners.Place:
    """Represent starts or goals, `places` (m, n, 2), as a planner needs them: by a state and embeddings of both levels.

    The encoders of `knowledge` embed `frames` (m, n, POOLED, p), the last of which are seen at the places. The
    embedding of level 1 is the embedding of the last frame or, if `at_rest` is true, the mean over all frames. The
    state is the place itself if the planner uses the true dynamics, and the embedding of level 1 otherwise.
    """
    seen = knowledge.encode(frames)
    first = seen.mean(2) if at_rest else seen[:, :, -1]
    state = torch.as_tensor(places).to(first) if planner.true else first
    return planners.Place(state, first, knowledge.above(seen))


def _levels(planner: Flat | Hierarchical, world: two_rooms.TwoRooms, knowledge: Knowledge) -> planners.Levels:
    """Models for a `planner`: the learnt models in `knowledge`, with true dynamics on level 1 if `planner.true` is set.

    The true dynamics are those of the `world`. Their states are places, which are embedded by the learnt encoder of
    level 1, from observations without noise. Models of level 2 are always the learnt ones.
    """
    if not planner.true:
        return planners.Levels(knowledge.first, knowledge.second, lambda path: path, knowledge.above)

    def encoded(path: Tensor) -> Tensor:
        nothing = np.zeros((*path.shape[:-1], world_shapes.NUISANCE), np.float32)
        seen = world.seen({"place": path.cpu().numpy(), "nuisance": nothing})
        return knowledge.encode(torch.as_tensor(seen).to(path))

    return planners.Levels(true_step, knowledge.second, encoded, knowledge.above, way)


def true_step(places: Tensor, actions: Tensor) -> Tensor:
    """Places (…, 2) after `actions` (…, 2) from `places` (…, 2), by the true dynamics.

    Actions are in units of the longest step.
    """
    moved = two_rooms.moved(places.cpu().numpy(), two_rooms.LONGEST * actions.cpu().numpy())
    return torch.as_tensor(moved).to(places)


def way(places: Tensor, goals: Tensor) -> Tensor:
    """Lengths (m, n, …) of the shortest paths from `places` (m, n, …, 2) to `goals` (m, n, 2).

    Within a room, the path is a straight line. Between the rooms, it crosses the thin wall where the straight line
    does or, if that is not in the door, at the nearer end of the door.
    """
    goals = goals.reshape(*goals.shape[:2], *(1,) * (places.ndim - 3), 2)
    x, width = places[..., 0], goals[..., 0] - places[..., 0]
    apart = (x < two_rooms.WALL) != (goals[..., 0] < two_rooms.WALL)
    share = torch.where(apart, (two_rooms.WALL - x) / torch.where(width == 0, 1, width), 0.5)
    height = torch.lerp(places[..., 1], goals[..., 1].expand_as(x), share)
    height = torch.where(apart, height.clamp(*two_rooms.DOOR), height)
    through = torch.stack([x + share * width, height], -1)
    return torch.linalg.vector_norm(through - places, dim=-1) + torch.linalg.vector_norm(goals - through, dim=-1)
