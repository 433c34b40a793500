"""Ensembles on planes, on spheres and in the full space, against single runs, after kills, and by theory."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import constraints, projections
from goldilocks_zone.subspaces import labels as subspaces_labels
from goldilocks_zone.training import ensembles, loop, observations
from made_up.networks import model


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


SCALES = double(0.3, 1.0, 4.0)
SHUFFLES = [("shuffle", 0), ("shuffle", 1)]
KINDS = ["plane dense", "plane sparse", "plane fastfood", "sphere", "sphere through", "full free", "full fixed"]


def problem(label="fc-9x2-relu"):
    return model(label, image=(6,), classes=4, examples=50)


def subset(kind, network, seed, scales=SCALES):
    """Subset of parameter space in which three members with this seed are trained, in double precision.

    `kind` is full, plane or sphere, and possibly a variant after a space. `scales` are factors of one initialisation,
    one for each member, or of its norm on spheres.
    """
    point = network.initialisation(seed, 1.0)
    points = scales[:, None] * point
    shapes = [parameter.shape for parameter in network.module.parameters()]
    kind, _, which = kind.partition(" ")
    if kind == "full":
        return constraints.full(points, shapes, which == "fixed")
    how = which if which in subspaces_labels.PROJECTION_KINDS else "dense"
    projection = projections.make(
        subspaces_labels.Plane(7, how), shapes, np.ones(len(point)), stream("plane", seed), point
    )
    if kind == "plane":
        return constraints.plane(projection, points)
    if which:
        return constraints.sphere_through(projection, point, scales * point.norm())
    direction = torch.as_tensor(stream("direction", seed).standard_normal(7))
    return constraints.sphere(projection, scales * point.norm(), direction)


def ensemble(kind, network, seed=0, scales=SCALES, **changed):
    rates = changed.pop("rates", double(0.003, 0.01, 0.03))
    examples = Problem(network.module, network.inputs, network.targets, changed.pop("loss", "cross_entropy"))
    chosen = {"steps": 200, "batch": 16, "rates": rates, "temperatures": double(1.0, 2.0, 0.5), **changed}
    options = ensembles.Options(**chosen)
    return ensembles.Ensemble(examples, subset(kind, network, seed, scales), options, [SHUFFLES[seed]])


def run(trained, network, log_at=(0, 100, 200), **options):
    def observe(step, state):
        return {"coordinates": state.coordinates.clone()}

    return loop.train(trained, log_at, observe, **options)


def alone(kind, network, seed, member, optimiser, steps=200, batch=16, momentum=0.9, loss=nn.functional.cross_entropy):
    """Coordinates of one member of an ensemble after training in a plain PyTorch loop.

    The loop has a dense matrix M, and torch's optimiser at the member's own rate.
    """
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
        chosen.zero_grad()
        loss(outputs / temperature, network.targets[order]).backward()
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
    for seed, members in [(0, (0,)), (1, (1, 2))]:
        found = run(ensemble(kind, network, seed, optimiser=optimiser, momentum=0.9), network)["coordinates"][-1]
        for member in members:
            expected = alone(kind, network, seed, member, optimiser).numpy()
            # 200 steps of rounding errors in another order.
            assert np.abs(found[member] - expected).max() < 1e-10 * max(1, np.abs(expected).max())


def test_squared_errors_are_trained_on_as_they_would_be_alone():
    network = problem()

    def loss(outputs, labels):
        return (outputs - nn.functional.one_hot(labels, outputs.shape[1])).square().sum(1).mean() / 2

    trained = ensemble("plane sparse", network, 0, loss="mean_squared_error")
    found = run(trained, network)["coordinates"][-1]
    for member in range(3):
        expected = alone("plane sparse", network, 0, member, "adam", loss=loss).numpy()
        assert np.abs(found[member] - expected).max() < 1e-10 * max(1, np.abs(expected).max())
    parameters = [each[:1] for each in trained.parameters()]
    logits = trained.logits(parameters, network.inputs)[0] / trained.temperatures[0]
    measured = observations.classified(trained, network.inputs, network.targets)["loss"][0]
    assert measured.item() == pytest.approx(loss(logits, network.targets).item(), rel=1e-12)


@pytest.mark.parametrize("which", ["free", pytest.param("fixed", marks=pytest.mark.slow)])
def test_seeds_of_the_whole_space_train_as_they_would_alone(which):
    """Each seed has its own batches."""
    network = problem()
    parts = [subset(f"full {which}", network, seed) for seed in (0, 1)]
    norms = None if which == "free" else torch.cat([each.norms for each in parts])
    both = constraints.Subset(torch.cat([each.start for each in parts]), parts[0].shapes, norms=norms)
    options = ensembles.Options(200, 16, double(0.003, 0.01, 0.03).repeat(2), double(1.0, 2.0, 0.5).repeat(2))
    shuffles = [name for name in SHUFFLES for _ in SCALES]
    found = run(
        ensembles.Ensemble(Problem(network.module, network.inputs, network.targets), both, options, shuffles), network
    )["coordinates"][-1]
    for seed in (0, 1):
        for member in range(3):
            expected = alone(f"full {which}", network, seed, member, "adam").numpy()
            assert np.abs(found[3 * seed + member] - expected).max() < 1e-10 * max(1, np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sphere", "sphere through", "full fixed"])
def test_the_radius_is_kept(kind):
    network = problem()
    for seed in (0, 1):
        trained = ensemble(kind, network, seed)
        norms = trained.subset.norms
        found = torch.as_tensor(run(trained, network, log_at=range(0, 201, 10))["coordinates"]).norm(dim=2)
        assert ((found / norms - 1).abs() < 1e-5).all()
        if kind != "sphere":
            # Also that of the parameters: the basis is orthonormal.
            flat = torch.cat([each.flatten(1) for each in trained.parameters()], 1)
            expected = SCALES * network.initialisation(seed, 1.0).norm()
            assert ((flat.norm(dim=1) / expected - 1).abs() < 1e-5).all()


def test_a_sphere_through_a_point_starts_there():
    network = problem()
    part = subset("sphere through", network, 3)
    flat = torch.cat([each.flatten(1) for each in part.forward(part.start)], 1)
    torch.testing.assert_close(flat, SCALES[:, None] * network.initialisation(3, 1.0), rtol=1e-12, atol=1e-12)


def test_planes_start_at_the_initialisation_and_stay_in_the_plane():
    network = problem()
    trained = ensemble("plane dense", network, 1)
    found = run(trained, network)["coordinates"]
    assert not found[0].any() and np.abs(found[-1]).min() > 0
    flat = torch.cat([each.flatten(1) for each in trained.parameters()], 1)
    moved = flat - SCALES[:, None] * network.initialisation(1, 1.0)
    rows = trained.subset.projection.rows
    torch.testing.assert_close(moved, trained.coordinates @ rows, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["plane dense", "full fixed"])
def test_a_member_that_diverges_does_not_touch_the_others(kind):
    network = problem()
    whole = run(ensemble(kind, network), network)["coordinates"]
    found = run(ensemble(kind, network, rates=double(0.003, 1e200, 0.03)), network)["coordinates"]
    assert np.isnan(found[-1][1]).all() and np.isfinite(found[0]).all()
    assert np.array_equal(found[:, [0, 2]], whole[:, [0, 2]])


STANDING = {"optimiser": "sgd", "batch": None, "rates": double(0.1, 1e200, 0.3)}


def standing(network, **changed):
    """Ensemble of three members of a network without biases: the first starts at zero and never moves.

    The second one diverges. `changed` replaces options.
    """
    return ensemble("full free", network, scales=double(0.0, 1.0, 1.0), **{**STANDING, **changed})


def test_members_at_rest_are_left_out_and_keep_what_was_found_of_them(monkeypatch):
    network, log_at = problem("fc-9x2-relu-nobias"), (0, 5, 50, 120, 200)
    examples = {"training": (network.inputs, network.targets)}
    trained, sizes = standing(network), []

    def observe(step, state):
        sizes.append((step, len(state.coordinates)))
        return observations.snapshot(state, **examples)

    found = loop.train(trained, log_at, observe)
    assert sizes == [(0, 3), (5, 3), (50, 1), (120, 1), (200, 1)]
    monkeypatch.setattr(ensembles.Ensemble, "at_rest", lambda self, made: torch.zeros(len(self.rates), dtype=bool))
    other = standing(network)
    expected = loop.train(other, log_at, lambda _, state: observations.snapshot(state, **examples))
    assert np.isfinite(found["training_loss"][:, [0, 2]]).all() and np.isnan(found["training_loss"][-1, 1])
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-14, equal_nan=True, err_msg=name)
    torch.testing.assert_close(trained.coordinates, other.coordinates, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("changed", [{"optimiser": "adam"}, {"batch": 16}, {"momentum": 0.5}])
def test_members_that_a_later_step_may_move_are_not_at_rest(changed):
    network = problem("fc-9x2-relu-nobias")
    trained = standing(network, **changed)
    for step in range(3):
        made = trained.step(step, network.inputs[:16], network.targets[:16])
    assert trained.at_rest(made).tolist() == [False, True, False]


def test_an_ensemble_all_of_whose_members_rest():
    network = problem("fc-9x2-relu-nobias")
    trained = ensemble("full free", network, scales=double(0.0, 0.0, 1.0), **{**STANDING, "rates": double(1, 1, 1e200)})
    found = run(trained, network, (0, 20, 100, 200))["coordinates"]
    assert (found[-1][:2] == 0).all() and np.isnan(found[-1][2]).all() and np.array_equal(found[1], found[3], True)


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*ensembles.OPTIMISERS, "standing"])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, monkeypatch, kind, caplog):
    monkeypatch.setattr(loop, "SHARE_OF_CHECKPOINTS", np.inf)

    def make():
        if kind == "standing":
            return standing(network)
        return ensemble("plane sparse", network, optimiser=kind, momentum=0.5)

    def coordinates(step, state):
        return {"coordinates": state.coordinates.clone()}

    network = problem("fc-9x2-relu-nobias" if kind == "standing" else "fc-9x2-relu")
    first, other = (loop.Checkpoint(tmp_path / "run.pt", key, 0.0) for key in "ab")
    log_at = (0, 50, 120, 200)
    whole = loop.train(make(), log_at, coordinates)

    def killed_at(last):
        def observe(step, state):
            if step == last:
                raise Killed
            return coordinates(step, state)

        return observe

    for last in (120, 200):
        with pytest.raises(Killed):
            loop.train(make(), log_at, killed_at(last), checkpoint=first)
    caplog.set_level("INFO")
    found = loop.train(make(), log_at, killed_at(None), checkpoint=first)
    assert "goes on after step 199 of 200" in caplog.text
    # A run that is over is not run again.
    again = loop.train(make(), log_at, killed_at(200), checkpoint=first)
    assert all(np.array_equal(again[name], values, equal_nan=True) for name, values in found.items())
    assert set(found) == {"coordinates", "path_square", "step_cosine"}
    for name, values in whole.items():
        assert np.array_equal(found[name], values, equal_nan=True), name
    # Other code or settings start anew.
    loop.train(make(), log_at, killed_at(None), checkpoint=other)
    assert caplog.text.count("goes on") == 2


def test_progress_of_a_straight_path():
    progress = observations.Progress(torch.zeros(2, 3))
    for _ in range(4):
        # In two parts, and over the rates.
        parts = [torch.tensor([[[1.0], [2.0]], [[0.0], [0.0]]]), torch.tensor([[2.0], [1.0]])]
        progress.add(parts, torch.tensor([1.0, 3.0]))
    found = progress.found()
    assert found["path_square"].tolist() == [36.0, 36.0]
    assert found["step_cosine"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("label, layers", [("fc-9x2-relu-nobias", 3), ("conv-3x2-relu-nobias", 3)])
def test_radius_rate_and_temperature_are_one_thing(label, layers):
    """Without biases x → cx, rate → c rate, T → cⁿ T and Adam's ε → ε/c is the same run (hypothesis by3)."""
    network = model(label, image=(1, 5, 6) if "conv" in label else (6,), classes=4, examples=50)
    one = torch.ones(1, dtype=torch.float64)
    for c in (0.1, 7.0):
        runs = [
            ensemble(
                "full free", network, 0, scale * one, rates=scale * 0.01 * one, temperatures=scale**layers * one,
                epsilon=1e-6 / scale, steps=60,
            )
            for scale in (1.0, c)
        ]  # fmt: skip
        near, far = (run(each, network, (60,))["coordinates"] for each in runs)
        assert np.abs(far / c - near).max() < 1e-9


def test_accuracies_count_and_average():
    network = problem()
    found = observations.classified(ensemble("plane dense", network, 1), network.inputs, network.targets)
    right, losses = found["accuracy"], found["loss"]
    assert not found["zero_logits"].any()
    for member, scale in enumerate(SCALES):
        z = network.logits(scale * network.initialisation(1, 1.0), network.inputs)
        assert float(right[member]) == float((z.argmax(1) == network.targets).double().mean())
        expected = nn.functional.cross_entropy(z / [1.0, 2.0, 0.5][member], network.targets)
        assert float(losses[member]) == pytest.approx(float(expected), rel=1e-12)


def test_what_is_logged_of_a_member():
    network = problem()
    trained, points = ensemble("plane dense", network, steps=30), {}

    def observe(step, state):
        points[step] = torch.cat([each.flatten(1) for each in state.parameters()], 1)
        return observations.snapshot(state, training=(network.inputs, network.targets))

    found = loop.train(trained, (0, 30), observe)
    start, end = points[0], points[30]
    assert np.allclose(found["norm"][1], end.norm(dim=1), rtol=1e-12)
    assert np.allclose(found["distance"][1], (end - start).norm(dim=1), rtol=1e-12)
    cosines = torch.nn.functional.cosine_similarity(start, end)
    assert np.allclose(found["start_cosine"][1], cosines, rtol=1e-12)
    sizes = [parameter.numel() for parameter in network.module.parameters()]
    pieces = [each.norm(dim=1) for each in end.split(sizes, 1)]
    assert np.allclose(found["tensor_norm"][1], torch.stack(pieces, 1), rtol=1e-12)
    # At rest at the start, and the first step is on the batch.
    assert not found["distance"][0].any() and not found["path_square"][0].any()
    whole = trained.gradients(network.inputs, network.targets)
    assert np.allclose(found["gradient_norm"][1], whole.norm(dim=1), rtol=1e-12)


def test_random_signs_leave_the_size_of_gradients():
    """Signs depend only on the stream of batches and the step, and are the same for members of one draw."""
    network = problem()
    options = {"optimiser": "sgd", "rates": double(1.0, 1.0, 1.0), "steps": 1}
    plain = run(ensemble("full free", network, **options), network, (0, 1))["coordinates"]
    signed = run(ensemble("full free", network, random_signs=True, **options), network, (0, 1))["coordinates"]
    steps, walk = plain[1] - plain[0], signed[1] - signed[0]
    moved = np.abs(steps[1]) > 1e-12
    assert np.allclose(np.abs(walk), np.abs(steps), rtol=1e-9, atol=1e-14)
    ratio = walk[1, moved] / steps[1, moved]
    assert 0.2 < (ratio < 0).mean() < 0.8
    again = run(ensemble("full free", network, random_signs=True, **options), network, (0, 1))["coordinates"]
    assert np.array_equal(signed, again)


def test_large_batches_and_unknown_optimisers_are_refused():
    network = problem()
    with pytest.raises(ValueError, match="batch: 51 examples cannot be drawn from 50; lower it"):
        run(ensemble("plane dense", network, batch=51), network)
    with pytest.raises(ValueError, match="optimiser 'lion' is unknown: use one of adam, sgd"):
        ensemble("plane dense", network, optimiser="lion")
    options = ensembles.Options(1, 16, double(1, 1, 1), double(1, 1, 1))
    with pytest.raises(ValueError, match="shuffles has 2 streams for 3 members: give one for all"):
        examples = Problem(network.module, network.inputs, network.targets)
        ensembles.Ensemble(examples, subset("full free", network, 0), options, SHUFFLES)
    with pytest.raises(ValueError, match="training draws batches of its own: give inputs and labels as one array each"):
        batches = Problem(network.module, [network.inputs], [network.targets])
        ensembles.Ensemble(batches, subset("full free", network, 0), options, SHUFFLES[:1])


def test_a_batch_of_all_examples_is_the_full_gradient():
    network = problem()
    trained = ensemble("full free", network, batch=None, steps=1, optimiser="sgd")
    found = run(trained, network, (1,))["coordinates"][0]
    point = (SCALES[1] * network.initialisation(0, 1.0)).requires_grad_()
    loss = nn.functional.cross_entropy(network.logits(point, network.inputs) / 2.0, network.targets)
    (gradient,) = torch.autograd.grad(loss, point)
    torch.testing.assert_close(torch.as_tensor(found[1]), (point - 0.01 * gradient).detach(), rtol=1e-7, atol=1e-9)


def test_a_run_that_is_asked_to_stop_leaves_a_checkpoint_and_goes_on_from_there(tmp_path):
    network, steps = problem(), iter([False] * 60 + [True])
    whole = run(ensemble("plane sparse", network), network)
    asked = loop.Checkpoint(tmp_path / "run.pt", "key", 1e9, lambda: next(steps))
    with pytest.raises(loop.Stopped, match="asked to stop after step 61 of 200"):
        run(ensemble("plane sparse", network), network, checkpoint=asked)
    found = run(ensemble("plane sparse", network), network, checkpoint=loop.Checkpoint(tmp_path / "run.pt", "key"))
    for name, values in whole.items():
        assert np.array_equal(found[name], values, equal_nan=True), name
