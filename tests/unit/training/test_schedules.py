"""Rates and losses that change with the step: against plain loops, after kills, and with members left out."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from goldilocks_zone.models.losses import CrossEntropy, SeparateLoss
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.training import ensembles, loop
from made_up.networks import model

MEMBERS, N, STEPS = 3, 12, 30
NETWORK = model("fc-9x2-relu", image=(6,), classes=4, examples=N)
POINTS = torch.stack([NETWORK.initialisation(draw, 1.0) for draw in range(MEMBERS)])
SHAPES = [parameter.shape for parameter in NETWORK.module.parameters()]


class Heavier(SeparateLoss):
    """Cross-entropy times a constant `weight`, as a loss of the package."""

    name = "heavier"

    def __init__(self, weight):
        self.weight = weight

    def values(self, outputs, labels):
        return self.weight * CrossEntropy().values(outputs, labels)


def decay(step):
    return min(1.0, (STEPS - step) / (0.3 * STEPS))


def heavier(step):
    return Heavier(1 + step / 10)


def fresh(step):
    """Inputs (m, n, 6) and labels (m, n) of all members, drawn anew for each training step."""
    random = stream("fresh", step)
    inputs, labels = random.standard_normal((MEMBERS, N, 6)), random.integers(0, 4, (MEMBERS, N))
    return torch.as_tensor(inputs), torch.as_tensor(labels)


def ensemble(points=POINTS, fixed=False, **changed):
    own = {"optimiser": "sgd", "fresh": fresh, "rate_at": decay, "loss_at": heavier, **changed}
    options = ensembles.Options(
        STEPS, None, torch.full((MEMBERS,), 0.05, dtype=torch.float64), own_examples=True, **own
    )
    subset = constraints.full(points, SHAPES, fixed=fixed)
    return ensembles.Ensemble(Problem(NETWORK.module, *fresh(0)), subset, options, [("batches",)])


def train(trained, log_at=(0, 10, 20, STEPS), checkpoint=None):
    return loop.train(trained, log_at, lambda _, state: {"x": state.coordinates.clone()}, checkpoint)


def alone(member, steps=STEPS):
    """Parameters (steps + 1, D) of one member at the start and after each step, in a plain torch loop."""
    theta, places = nn.Parameter(POINTS[member].clone()), [POINTS[member].clone()]
    for step in range(steps):
        optimiser = torch.optim.SGD([theta], lr=0.05 * decay(step))
        optimiser.zero_grad()
        inputs, labels = (each[member] for each in fresh(step))
        loss = (1 + step / 10) * nn.functional.cross_entropy(NETWORK.logits(theta, inputs), labels)
        loss.backward()
        optimiser.step()
        places.append(theta.detach().clone())
    return torch.stack(places)


def test_rates_and_losses_follow_the_step():
    found = train(ensemble())
    for member in range(MEMBERS):
        places = alone(member)
        assert np.abs(found["x"][-1, member] - places[-1].numpy()).max() < 1e-12
        lengths = (places[1:] - places[:-1]).square().sum()
        assert float(found["path_square"][-1, member]) == pytest.approx(float(lengths), rel=1e-10)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_killed_run_goes_on_at_the_rate_and_loss_of_its_step(optimiser, tmp_path):
    whole = train(ensemble(optimiser=optimiser))
    asked = iter([False] * 24 + [True])
    with pytest.raises(loop.Stopped):
        train(ensemble(optimiser=optimiser), checkpoint=loop.Checkpoint(tmp_path / "a", "k", 1e9, lambda: next(asked)))
    resumed = train(ensemble(optimiser=optimiser), checkpoint=loop.Checkpoint(tmp_path / "a", "k"))
    for name, values in whole.items():
        assert np.array_equal(resumed[name], values, equal_nan=True), name


def test_those_that_stay_keep_their_own_fresh_examples_and_schedules(tmp_path):
    """The first member overflows at once and is left out; the others continue as without it."""
    points = POINTS.clone()
    points[0] = math.inf
    found = train(ensemble(points))["x"]
    assert not np.isfinite(found[-1, 0]).any()
    for member in (1, 2):
        assert np.abs(found[-1, member] - alone(member)[-1].numpy()).max() < 1e-12
    asked = iter([False] * 24 + [True])
    with pytest.raises(loop.Stopped):
        train(ensemble(points), checkpoint=loop.Checkpoint(tmp_path / "a", "k", 1e9, lambda: next(asked)))
    resumed = train(ensemble(points), checkpoint=loop.Checkpoint(tmp_path / "a", "k"))["x"]
    assert np.array_equal(resumed, found, equal_nan=True)


def test_schedules_of_one_change_nothing():
    plain, same = (
        ensemble(rate_at=None, loss_at=None),
        ensemble(rate_at=lambda _: 1.0, loss_at=lambda _: CrossEntropy()),
    )
    assert np.array_equal(train(plain)["x"], train(same)["x"])


def test_rates_decay_on_spheres_too():
    """Each step is tangential at the decayed rate, followed by a projection back to the radius."""
    theta, radius = POINTS[1].clone(), POINTS[1].norm()
    for step in range(STEPS):
        point = theta.clone().requires_grad_()
        inputs, labels = (each[1] for each in fresh(step))
        loss = nn.functional.cross_entropy(NETWORK.logits(point, inputs), labels)
        (gradient,) = torch.autograd.grad(loss, point)
        theta = theta - 0.05 * decay(step) * (gradient - (gradient @ theta) / (theta @ theta) * theta)
        theta = theta * radius / theta.norm()
    found = train(ensemble(fixed=True, loss_at=None))["x"]
    assert np.abs(found[-1, 1] - theta.numpy()).max() < 1e-12


def test_a_step_of_zero_is_no_rest_where_the_loss_changes():
    """Cross-entropy times zero moves nothing for ten steps, but the member must not count as at rest."""
    trained = ensemble(fresh=None, loss_at=lambda step: Heavier(float(step >= 10)))
    found = train(trained, (0, 5, 10, STEPS))["x"]
    assert np.array_equal(found[2], found[0]) and not np.array_equal(found[3], found[0])
