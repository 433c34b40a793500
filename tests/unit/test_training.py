"""Ensembles on planes, spheres and in the whole space: against one run alone, through kills, and by theory."""

import math

import numpy as np
import pytest
import torch
from models import model
from torch import nn
from torch.func import functional_call

from goldilocks import projections, subsets, training
from goldilocks.randomness import stream


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


SCALES = double(0.3, 1.0, 4.0)
SHUFFLES = [("shuffle", 0), ("shuffle", 1)]
KINDS = ["plane dense", "plane sparse", "plane fastfood", "sphere", "sphere through", "full free", "full fixed"]


def problem(label="fc-9x2-relu"):
    return model(label, image=(6,), classes=4, examples=50)


def subset(kind, network, seed, scales=SCALES):
    """The subset of one seed, in double precision."""
    point = network.initialisation(seed, 1.0)
    points = scales[:, None] * point
    shapes = [parameter.shape for parameter in network.module.parameters()]
    kind, _, which = kind.partition(" ")
    if kind == "full":
        return subsets.full(points, shapes, which == "fixed")
    how = which if which in projections.KINDS else "dense"
    projection = projections.make(how, 7, shapes, np.ones(len(point)), stream("plane", seed), torch.float64)
    if kind == "plane":
        return subsets.plane(projection, points)
    if which:
        return subsets.sphere_through(projection, point, scales * point.norm())
    direction = torch.as_tensor(stream("direction", seed).standard_normal(7))
    return subsets.sphere(projection, scales * point.norm(), direction)


def ensemble(kind, network, seeds=(0, 1), scales=SCALES, **changed):
    rates = changed.pop("rates", double(0.003, 0.01, 0.03))
    chosen = {"steps": 200, "batch": 16, "rates": rates, "temperatures": double(1.0, 2.0, 0.5), **changed}
    parts = [subset(kind, network, seed, scales) for seed in seeds]
    return training.Ensemble(network.module, parts, training.Options(**chosen))


def run(trained, network, log_at=(0, 100, 200), shuffles=SHUFFLES, **options):
    def observe(step, state):
        return {"coordinates": state.coordinates.clone()}

    return training.train(trained, network.inputs, network.targets, shuffles, log_at, observe, **options)


def alone(kind, network, seed, member, optimiser, steps=200, batch=16, momentum=0.9):
    """One member in a plain PyTorch loop: explicit M, torch's optimiser at the member's own rate."""
    part = subset(kind, network, seed)
    start = part.start[member]
    columns = [
        torch.cat([each[member].flatten() for each in part.forward(torch.eye(len(start))[i].double().repeat(3, 1))])
        for i in range(len(start))
    ]
    origin = torch.cat([each[member].flatten() for each in part.forward(torch.zeros(3, len(start)).double())])
    matrix = torch.stack(columns, 1) - origin[:, None]
    w = nn.Parameter(start.clone())
    rate, temperature = [0.003, 0.01, 0.03][member], [1.0, 2.0, 0.5][member]
    options = {} if optimiser == "adam" else {"momentum": momentum}
    chosen = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimiser]([w], lr=rate, **options)
    names, shapes = zip(*((name, p.shape) for name, p in network.module.named_parameters()))
    n, per_epoch = len(network.inputs), len(network.inputs) // batch
    for step in range(steps):
        epoch, number = divmod(step, per_epoch)
        order = stream(*SHUFFLES[seed], epoch).permutation(n)[number * batch : (number + 1) * batch]
        flat = (origin + matrix @ w).split([math.prod(shape) for shape in shapes])
        values = {name: each.view(shape) for name, each, shape in zip(names, flat, shapes)}
        outputs = functional_call(network.module, values, (network.inputs[order],))
        loss = nn.functional.cross_entropy(outputs / temperature, network.targets[order])
        chosen.zero_grad()
        loss.backward()
        norm = None if part.norms is None else part.norms[member]
        with torch.no_grad():
            if norm is not None:
                w.grad -= (w.grad @ w) / (w @ w) * w
            chosen.step()
            if norm is not None:
                w *= norm / w.norm()
    return w.detach()


@pytest.mark.parametrize(
    "kind, optimiser",
    [
        ("plane sparse", "adam"),
        *(pytest.param(kind, "adam", marks=pytest.mark.slow) for kind in KINDS if kind != "plane sparse"),
        pytest.param("plane dense", "sgd", marks=pytest.mark.slow),
        pytest.param("full fixed", "sgd", marks=pytest.mark.slow),
    ],
)
def test_a_member_trains_as_it_would_alone(kind, optimiser):
    network = problem()
    found = run(ensemble(kind, network, optimiser=optimiser, momentum=0.9), network)["coordinates"][-1]
    for seed, member in [(0, 0), (1, 1), (1, 2)]:
        expected = alone(kind, network, seed, member, optimiser).numpy()
        # 200 steps of rounding errors in another order.
        assert np.abs(found[seed, member] - expected).max() < 1e-10 * max(1, np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sphere", "sphere through", "full fixed"])
def test_the_radius_is_kept(kind):
    network = problem()
    trained = ensemble(kind, network)
    start = [each.norms for each in trained.subsets]
    found = torch.as_tensor(run(trained, network, log_at=range(0, 201, 10))["coordinates"]).norm(dim=3)
    for seed, norms in enumerate(start):
        assert ((found[:, seed] / norms - 1).abs() < 1e-5).all()
    if kind != "sphere":
        # Also that of the parameters: the basis is orthonormal.
        for seed in (0, 1):
            flat = torch.cat([each.flatten(1) for each in trained.parameters(seed)], 1)
            expected = SCALES * network.initialisation(seed, 1.0).norm()
            assert ((flat.norm(dim=1) / expected - 1).abs() < 1e-5).all()


def test_a_sphere_through_a_point_starts_there():
    network = problem()
    part = subset("sphere through", network, 3)
    flat = torch.cat([each.flatten(1) for each in part.forward(part.start)], 1)
    torch.testing.assert_close(flat, SCALES[:, None] * network.initialisation(3, 1.0), rtol=1e-12, atol=1e-12)


def test_planes_start_at_the_initialisation_and_stay_in_the_plane():
    network = problem()
    trained = ensemble("plane dense", network)
    found = run(trained, network)["coordinates"]
    assert not found[0].any() and np.abs(found[-1]).min() > 0
    flat = torch.cat([each.flatten(1) for each in trained.parameters(1)], 1)
    moved = flat - SCALES[:, None] * network.initialisation(1, 1.0)
    rows = trained.subsets[1].projection.rows
    torch.testing.assert_close(moved, trained.coordinates[1] @ rows, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["plane dense", "full fixed"])
def test_a_member_that_diverges_does_not_touch_the_others(kind):
    network = problem()
    whole = run(ensemble(kind, network), network)["coordinates"]
    found = run(ensemble(kind, network, rates=double(0.003, 1e200, 0.03)), network)["coordinates"]
    assert np.isnan(found[-1][:, 1]).all() and np.isfinite(found[0]).all()
    assert np.array_equal(found[:, :, [0, 2]], whole[:, :, [0, 2]])


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", training.OPTIMISERS)
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, monkeypatch, optimiser, caplog):
    monkeypatch.setattr(training, "SECONDS_PER_CHECKPOINT", 0.0)
    network, path = problem(), tmp_path / "run.pt"
    tensors = (network.inputs, network.targets, SHUFFLES, (0, 50, 120, 200))
    whole = run(ensemble("plane sparse", network, optimiser=optimiser, momentum=0.5), network, (0, 50, 120, 200))

    def killed_at(last):
        def observe(step, state):
            if step == last:
                raise Killed
            return {"coordinates": state.coordinates.clone()}

        return observe

    def make():
        return ensemble("plane sparse", network, optimiser=optimiser, momentum=0.5)

    for last in (120, 200):
        with pytest.raises(Killed):
            training.train(make(), *tensors, killed_at(last), checkpoint=path, key="a")
    caplog.set_level("INFO")
    found = training.train(make(), *tensors, killed_at(None), checkpoint=path, key="a")
    assert "goes on after step 199 of 200" in caplog.text
    assert set(found) == {"coordinates", "path_square", "step_cosine"}
    for name, values in whole.items():
        assert np.array_equal(found[name], values, equal_nan=True), name
    # Other code or settings start anew.
    training.train(make(), *tensors, killed_at(None), checkpoint=path, key="b")
    assert caplog.text.count("goes on") == 1


def test_progress_of_a_straight_path():
    progress = training.Progress(torch.zeros(2, 1, 3))
    for _ in range(4):
        progress.add(torch.tensor([[[1.0, 2.0, 2.0]], [[0.0, 0.0, 1.0]]]))
    found = progress.found()
    assert found["path_square"].flatten().tolist() == [36.0, 4.0]
    assert found["step_cosine"].flatten().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("label, layers", [("fc-9x2-relu-nobias", 3), ("conv-3x2-relu-nobias", 3)])
def test_radius_rate_and_temperature_are_one_thing(label, layers):
    """Without biases x → cx, rate → c rate, T → cⁿ T and Adam's ε → ε/c is the same run (hypothesis by3)."""
    network = model(label, image=(1, 5, 6) if "conv" in label else (6,), classes=4, examples=50)
    one = torch.ones(1, dtype=torch.float64)
    for c in (0.1, 7.0):
        runs = [
            ensemble(
                "full free", network, (0,), scale * one, rates=scale * 0.01 * one, temperatures=scale**layers * one,
                epsilon=1e-6 / scale, steps=60,
            )
            for scale in (1.0, c)
        ]  # fmt: skip
        near, far = (run(each, network, (60,), SHUFFLES[:1])["coordinates"] for each in runs)
        assert np.abs(far / c - near).max() < 1e-9


def test_accuracies_count_and_average():
    network = problem()
    trained = ensemble("plane dense", network)
    right, losses = training.accuracies(trained, network.inputs, network.targets)
    for seed in (0, 1):
        for member, scale in enumerate(SCALES):
            z = network.logits(scale * network.initialisation(seed, 1.0), network.inputs)
            assert float(right[seed, member]) == float((z.argmax(1) == network.targets).double().mean())
            expected = nn.functional.cross_entropy(z, network.targets)
            assert float(losses[seed, member]) == pytest.approx(float(expected), rel=1e-12)


def test_large_batches_and_unknown_optimisers_are_refused():
    network = problem()
    with pytest.raises(ValueError, match="a batch of 51 examples cannot be drawn from 50: lower batch"):
        run(ensemble("plane dense", network, batch=51), network)
    with pytest.raises(ValueError, match="optimiser 'lion' is unknown: use one of adam, sgd"):
        ensemble("plane dense", network, optimiser="lion")


def test_a_batch_of_all_examples_is_the_full_gradient():
    network = problem()
    trained = ensemble("full free", network, batch=None, steps=1, optimiser="sgd")
    found = run(trained, network, (1,))["coordinates"][0]
    point = (SCALES[1] * network.initialisation(0, 1.0)).requires_grad_()
    loss = nn.functional.cross_entropy(network.logits(point, network.inputs) / 2.0, network.targets)
    (gradient,) = torch.autograd.grad(loss, point)
    torch.testing.assert_close(torch.as_tensor(found[0, 1]), (point - 0.01 * gradient).detach(), rtol=1e-7, atol=1e-9)
