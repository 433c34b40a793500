"""Ensembles whose members have their own examples, short last batches, fresh examples, and early stopping."""

import numpy as np
import pytest
import torch
from torch import nn

from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.training import batches, ensembles, loop, observations
from made_up.networks import model

MEMBERS, N = 3, 22
NAMES = [("batches", number) for number in range(MEMBERS)]
NETWORK = model("fc-9x2-relu", image=(6,), classes=4, examples=N)
INPUTS = torch.as_tensor(stream("own inputs").standard_normal((MEMBERS, N, 6)))
LABELS = torch.as_tensor(stream("own labels").integers(0, 4, (MEMBERS, N)))
POINTS = torch.stack([NETWORK.initialisation(draw, 1.0) for draw in range(MEMBERS)])


def ensemble(members=range(MEMBERS), inputs=INPUTS, labels=LABELS, names=NAMES, **changed):
    """Ensemble of these `members`, which are trained together, each on its own examples; `changed` replaces options."""
    chosen = list(members)
    shapes = [parameter.shape for parameter in NETWORK.module.parameters()]
    own = {"steps": 30, "batch": 5, "optimiser": "sgd", "momentum": 0.5, "own_examples": True, **changed}
    options = ensembles.Options(rates=torch.full((len(chosen),), 0.05, dtype=torch.float64), **own)
    problem = Problem(NETWORK.module, inputs[chosen], labels[chosen])
    subset = constraints.full(POINTS[chosen], shapes, fixed=False)
    return ensembles.Ensemble(problem, subset, options, [names[i] for i in chosen])


def train(trained, log_at=(0, 30), checkpoint=None):
    return loop.train(trained, log_at, lambda _, state: {"x": state.coordinates.clone()}, checkpoint)["x"]


def alone(member, keep_last, steps=30, batch=5):
    """Parameters (D,) of one member after training in a plain torch loop.

    `keep_last` says whether the last, smaller batch of an epoch is used.
    """
    theta = nn.Parameter(POINTS[member].clone())
    optimiser = torch.optim.SGD([theta], lr=0.05, momentum=0.5)
    per_epoch = -(-N // batch) if keep_last else N // batch
    sizes = set()
    for step in range(steps):
        epoch, number = divmod(step, per_epoch)
        order = stream(*NAMES[member], epoch).permutation(N)[number * batch : (number + 1) * batch]
        sizes.add(len(order))
        optimiser.zero_grad()
        outputs = NETWORK.logits(theta, INPUTS[member][order])
        nn.functional.cross_entropy(outputs, LABELS[member][order]).backward()
        optimiser.step()
    assert sizes == ({2, 5} if keep_last else {5})
    return theta.detach().numpy()


@pytest.mark.parametrize("keep_last", [False, True])
def test_members_train_on_their_own_examples_as_they_would_alone(keep_last):
    found = train(ensemble(keep_last=keep_last))[-1]
    for member in range(MEMBERS):
        assert np.abs(found[member] - alone(member, keep_last)).max() < 1e-12


def test_one_stream_chooses_the_same_numbers_from_all():
    shared = ensemble(names=NAMES[:1] * MEMBERS)
    together = ensemble(names=NAMES[:1] * MEMBERS)
    together.shuffles = together.shuffles[:1]
    for step in (0, 3, 7):
        for mine, theirs in zip(shared.examples(step), together.examples(step)):
            assert torch.equal(mine, theirs)


def test_an_epoch_with_its_short_batch_has_every_example_once():
    rows = torch.cat([batches.batch(NAMES, step, 5, N, keep_last=True) for step in range(5)], 1)
    assert (rows.sort(1).values == torch.arange(N)).all()
    assert batches.batch(NAMES, 4, 5, N, keep_last=True).shape == (MEMBERS, 2)


def test_losses_and_accuracies_are_on_their_own_examples():
    trained = ensemble()
    found = observations.snapshot(trained, training=(trained.inputs, trained.labels))
    fresh = observations.classified(trained, INPUTS[0], LABELS[0])
    for member in range(MEMBERS):
        theta = POINTS[member].clone().requires_grad_()
        outputs = NETWORK.logits(theta, INPUTS[member])
        loss = nn.functional.cross_entropy(outputs, LABELS[member])
        assert float(found["training_loss"][member]) == pytest.approx(loss.item(), rel=1e-12)
        right = (outputs.argmax(1) == LABELS[member]).double().mean().item()
        assert float(found["training_accuracy"][member]) == right
        (gradient,) = torch.autograd.grad(loss, theta)
        assert float(found["gradient_norm"][member]) == pytest.approx(gradient.norm().item(), rel=1e-12)
        expected = nn.functional.cross_entropy(NETWORK.logits(POINTS[member], INPUTS[0]), LABELS[0])
        assert float(fresh["loss"][member]) == pytest.approx(expected.item(), rel=1e-12)


def test_fresh_examples_come_by_the_number_of_the_step():
    asked = []

    def fresh(step):
        asked.append(step)
        return INPUTS[0][step : step + 3], LABELS[0][step : step + 3]

    found = train(ensemble(fresh=fresh, steps=4), (0, 4))[-1]
    assert asked == [0, 1, 2, 3]
    theta = nn.Parameter(POINTS[1].clone())
    optimiser = torch.optim.SGD([theta], lr=0.05, momentum=0.5)
    for step in range(4):
        optimiser.zero_grad()
        inputs, labels = fresh(step)
        nn.functional.cross_entropy(NETWORK.logits(theta, inputs), labels).backward()
        optimiser.step()
    assert np.abs(found[1] - theta.detach().numpy()).max() < 1e-12


STOPPING = {"batch": None, "optimiser": "adam", "steps": 300}


def losses(points):
    return [
        nn.functional.cross_entropy(NETWORK.logits(torch.as_tensor(theta), INPUTS[i]), LABELS[i]).item()
        for i, theta in enumerate(points)
    ]


def test_a_member_stops_at_the_first_step_with_its_loss(tmp_path):
    """The step differs between members; neither other members that stop nor a kill change it."""
    free = train(ensemble(**STOPPING), range(301))
    goal = losses(free[60])[1]
    reached = [next(t for t in range(301) if losses(free[t])[i] <= goal) for i in range(MEMBERS)]
    assert reached[1] <= 60 and len(set(reached)) == MEMBERS
    found = train(ensemble(**STOPPING, stop_at=goal), (0, 100, 200, 300))
    for member, step in enumerate(reached):
        np.testing.assert_allclose(found[-1][member], free[step][member], rtol=1e-12)
    asked = iter([False] * 120 + [True])
    with pytest.raises(loop.Stopped):
        stopped = loop.Checkpoint(tmp_path / "run.pt", "key", 1e9, lambda: next(asked))
        train(ensemble(**STOPPING, stop_at=goal), (0, 100, 200, 300), stopped)
    resumed = train(ensemble(**STOPPING, stop_at=goal), (0, 100, 200, 300), loop.Checkpoint(tmp_path / "run.pt", "key"))
    assert np.array_equal(resumed, found)


def test_members_on_a_sphere_do_not_stop():
    shapes = [parameter.shape for parameter in NETWORK.module.parameters()]
    options = ensembles.Options(1, None, torch.ones(MEMBERS), stop_at=0.1, own_examples=True)
    with pytest.raises(ValueError, match="stop_at needs training in the whole space"):
        problem = Problem(NETWORK.module, INPUTS, LABELS)
        ensembles.Ensemble(problem, constraints.full(POINTS, shapes, fixed=True), options, NAMES)
