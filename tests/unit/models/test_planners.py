"""Planners on known dynamics: goals that they must reach, goals that random sub-goals miss, and numbers of calls."""

import numpy as np
import pytest
import torch

from goldilocks_zone.data import two_rooms
from goldilocks_zone.measurements import rooms
from goldilocks_zone.models import planner_labels, planners
from goldilocks_zone.models.planner_labels import CALLS, POOLED, Flat, Hierarchical, parse
from goldilocks_zone.randomness import stream

MEMBERS, STARTS = 2, 30
LABELS = ["hierarchical", "flat-level1-free-8-x1", "flat-level2-held-16-x1", "flat-level1-held-8-x2-end"]


class Stub:
    """A model whose next state is state + action; `rows` counts the states for which it was evaluated."""

    def __init__(self):
        self.rows = 0

    def __call__(self, states, actions):
        self.rows += states.shape[0] * states.shape[1]
        return states + actions


def levels(first, second):
    """Levels of a planner with the models `first` and `second`, whose embeddings are the states themselves.

    The embedding of level 2 is the mean of a window of states.
    """
    return planners.Levels(first, second, lambda path: path, lambda windows: windows.mean(-2))


def place(values):
    return planners.Place(values, values, values)


def streams(*name):
    return [stream("test", *name, member) for member in range(MEMBERS)]


class Omniscient:
    """A perfect model of the two rooms: embeddings are places that it reads from frames, and predictions are exact."""

    def __init__(self, world):
        self.world = world
        grid = torch.cartesian_prod(*[(torch.arange(12) + 0.5) / 12] * 2)
        self._grid = grid

    def encode(self, frames):
        bumps = frames[..., :144]
        weights = (bumps - bumps.amin(-1, keepdim=True)) ** 2
        return weights @ self._grid / weights.sum(-1, keepdim=True)

    def knowledge(self):
        def first(states, actions):
            return rooms.true_step(states, actions)

        def second(states, actions):
            for _ in range(POOLED):
                states = rooms.true_step(states, actions / POOLED)
            return states

        return rooms.Knowledge(self.encode, lambda windows: windows.mean(-2), first, second)


def tasks(same_room=False):
    drawn = (two_rooms.tasks(stream("tasks", member), STARTS, same_room) for member in range(MEMBERS))
    return tuple(np.stack(each).astype(np.float32) for each in zip(*drawn))


def success(label, same_room=False):
    world = two_rooms.TwoRooms(1)
    found = rooms.acted(parse(label), world, Omniscient(world).knowledge(), tasks(same_room), range(MEMBERS))
    return found.success.mean()


def test_labels_say_what_planners_do():
    assert parse("hierarchical-random-end") == Hierarchical(random=True, end=True)
    assert parse("flat-level2-held-16-x2-end-true") == Flat("level2", True, 16, 2, end=True, true=True)
    assert parse("flat-level1-free-8-x1").samples == 16 and parse("flat-level1-held-16-x2").samples == 16
    for label in (
        "flat",
        "flat-exact-held-16-x1",
        "flat-level1-free-6-x1",
        "hierarchical-end-random",
        "flat-level1-free-20-x1",
    ):
        with pytest.raises(ValueError, match="planner"):
            parse(label)


@pytest.mark.parametrize("label", [*LABELS, "flat-level2-free-16-x2", "hierarchical-end"])
def test_calls_are_those_that_a_counting_stub_sees(label):
    first, second = Stub(), Stub()
    values = torch.zeros(MEMBERS, STARTS, 2)
    planner = parse(label)
    _, calls = planners.plan(planner, levels(first, second), place(values), place(values + 1), streams(label))
    # The stub also sees the sub-goal that is read off once the search has evaluated it.
    extra = isinstance(planner, Hierarchical)
    assert calls == (first.rows + second.rows) / (MEMBERS * STARTS) - extra
    assert calls == CALLS * getattr(planner, "times", 1)


@pytest.mark.parametrize("label", LABELS)
def test_members_and_starts_do_not_meet(label):
    """Plans of a member do not depend on other members, nor those of a start on other starts and their goals."""
    goals = torch.as_tensor(stream("goals").uniform(-3, 3, (MEMBERS, STARTS, 2))).float()
    starts = torch.zeros_like(goals)

    def planned(goals, some=slice(None)):
        known = levels(lambda s, a: s + a, lambda s, a: s + a)
        return planners.plan(parse(label), known, place(starts[some]), place(goals[some]), streams(label)[some])[0]

    both, alone = planned(goals), planned(goals, slice(1, 2))
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=0)
    changed = goals.clone()
    changed[:, 1:] += 1
    torch.testing.assert_close(both[:, :1], planned(changed)[:, :1], rtol=0, atol=0)


def test_search_finds_the_least_cost_and_keeps_to_its_reach():
    target = torch.tensor([0.6, -0.3]).expand(MEMBERS, STARTS, 1, 1, 2)
    search = planners.Search(1, samples=64, rounds=6)
    noise = search.noise(streams("search"), STARTS, target)
    found = search.best(lambda actions: (actions - target).square().sum((-1, -2)), noise)
    assert (found - target[:, :, 0]).norm(dim=-1).max() < 0.05
    far = search.best(lambda actions: (actions - 9).square().sum((-1, -2)), noise)
    assert far.norm(dim=-1).max() <= 1 + 1e-6 and (far - 0.5**0.5).abs().max() < 0.1


def test_search_returns_the_best_of_all_rounds():
    """One sample per round allows no fit; the first sample was the best, and is kept."""
    search = planners.Search(1, samples=1, rounds=3)
    noise = torch.tensor([0.1, 0.0, 0.0]).view(3, 1, 1, 1, 1, 1).expand(3, MEMBERS, STARTS, 1, 1, 2)
    found = search.best(lambda actions: -actions.sum((-1, -2)) * (actions < 0.06).all(-1)[..., 0], noise)
    torch.testing.assert_close(found, torch.full_like(found, 0.05))


def test_costs_that_are_no_numbers_are_the_worst():
    search = planners.Search(2, samples=8)
    noise = search.noise(streams("nan"), STARTS, torch.empty(0))
    found = search.best(lambda a: torch.where(a[..., 0, 0] > 0, torch.nan, a[..., 0, 1].square()), noise)
    assert torch.isfinite(found).all() and (found[..., 0, 0] <= 0).all()
    nothing = search.best(lambda a: torch.full(a.shape[:3], torch.nan), noise)
    assert torch.isfinite(nothing).all()


def test_unrolling_is_step_by_step():
    actions = torch.as_tensor(stream("unrolled").standard_normal((2, 3, 4, 5, 2)))
    states = torch.as_tensor(stream("states").standard_normal((2, 3, 2)))
    step = lambda s, a: 0.5 * s + a.square()  # noqa: E731
    expected = states[1, 2]
    path = planners.unrolled(step, states, actions)
    for number in range(5):
        expected = step(expected, actions[1, 2, 3, number])
        torch.testing.assert_close(path[1, 2, 3, number], expected)


@pytest.mark.parametrize(
    "start, goal, length",
    [
        ((0.2, 0.5), (0.8, 0.5), 0.6),
        ((0.2, 0.9), (0.3, 0.1), 0.65**0.5),
        ((0.4, 0.9), (0.6, 0.9), 2 * (0.01 + 0.0625) ** 0.5),
        ((0.3, 0.1), (0.7, 0.2), (0.04 + 0.0625) ** 0.5 + (0.04 + 0.0225) ** 0.5),
        ((0.7, 0.7), (0.4, 0.6), 0.1**0.5),
    ],
)
def test_the_exact_way_goes_through_the_door(start, goal, length):
    places, goals = (torch.tensor(each).expand(1, 1, 2) for each in (start, goal))
    assert rooms.way(places[:, :, None, None], goals).item() == pytest.approx(length)


def test_no_walk_is_shorter_than_the_exact_way():
    """Dynamics and shortest path agree: a step shortens the path by at most its own length, with or without walls."""
    random = stream("walks")
    places, goals = (torch.as_tensor(random.random((1, 4000, 2))) for _ in range(2))
    actions = planners.clipped(torch.as_tensor(random.standard_normal((1, 4000, 2))), 1)
    before, after = (rooms.way(each[:, :, None], goals) for each in (places, rooms.true_step(places, actions)))
    assert (before - after).max() <= two_rooms.LONGEST + 1e-9


@pytest.mark.parametrize("label", ["flat-exact-held-16-x2-true", "flat-exact-free-8-x1-true"])
def test_true_dynamics_and_the_exact_way_reach_nearly_all_goals(label):
    assert success(label) > 0.95


def test_subgoals_that_are_right_reach_the_other_room_and_random_ones_do_not():
    """Uses the true dynamics on both levels; distances are straight, so that not all goals behind walls are reached."""
    sought, random = success("hierarchical"), success("hierarchical-random")
    assert sought > 0.6 and random < 0.2


@pytest.mark.parametrize("label", ["hierarchical", "flat-level1-held-8-x1", "flat-level2-held-16-x1"])
def test_goals_in_the_same_room_are_reached(label):
    assert success(label, same_room=True) > 0.95


def test_the_last_state_alone_lets_a_planner_put_off_its_goal():
    assert success("flat-exact-held-16-x2-end-true") < success("flat-exact-held-16-x2-true") - 0.2


def test_episodes_are_those_of_their_member():
    """Episodes do not depend on other members that are planned for at the same time."""
    world, given = two_rooms.TwoRooms(1), tasks()
    knowledge = Omniscient(world).knowledge()
    both = rooms.acted(parse("hierarchical"), world, knowledge, given, [3, 5])
    alone = rooms.acted(parse("hierarchical"), world, knowledge, tuple(each[1:] for each in given), [5])
    np.testing.assert_array_equal(both.nearest[1:], alone.nearest)
    assert np.array_equal(both.nearest < rooms.NEAR, np.isfinite(both.reached_after))
    assert both.calls == alone.calls == planner_labels.CALLS
