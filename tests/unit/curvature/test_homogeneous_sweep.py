"""Sweeps over radii and temperatures against single points."""

import itertools

import pytest
import torch
from torch import nn

from goldilocks_zone.curvature import dispatch, hessian, homogeneous_sweep
from goldilocks_zone.curvature import tangents as curvature_tangents
from goldilocks_zone.curvature.accumulators import Sums
from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.models import chains, layers, losses
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import planes
from made_up.networks import model, of_module
from oracles.brute_force import assert_same, relative_error, tolerance

SCALES = [0.01, 0.1, 0.3, 1.0, 2.0, 5.0, 20.0, 100.0]


def averages():
    """Convolutions with average pooling, for images (1, 6, 6)."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2),
        nn.Conv2d(3, 4, 2, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.Linear(4, 4),
    )


def compare(network, theta, rows, scales, temperatures, examples, loss, path):
    """Assert that a sweep takes the `path` of `dispatch` and agrees, at each point, with this point alone.

    The sweep has tangents in the precision of `rows`, and single points have them in double precision.
    """
    problem, options = Problem(network.module, network.inputs, network.targets, loss), hessian.Options(examples)
    points = list(itertools.product(scales, temperatures))
    assert dispatch.path_of(problem, theta, len(points)) == path
    found = hessian.curvature_at(problem, theta, points, rows, options)
    for (scale, temperature), at_point in zip(points, found, strict=True):
        z, alone = network.logits(scale * theta, network.inputs), [(1.0, temperature)]
        (expected,) = hessian.curvature_at(problem, scale * theta, alone, rows.double(), options)
        bound = tolerance(rows.dtype, z / min(1, temperature))
        for each, other in zip(at_point, expected, strict=True):
            assert_same(each, other, bound if rows.dtype == torch.float32 else max(bound, 1e-10), scale * theta)


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize(
    "label, image, classes, kind, biases, dtype",
    [
        ("fc-9x2-relu-nobias", (8,), 4, "dense", False, torch.float64),
        ("fc-9x3-relu", (8,), 10, "dense", True, torch.float64),
        ("fc-30x3-relu", (8,), 4, "sparse", True, torch.float64),
        ("fc-60x3-relu", (8,), 10, "sparse", False, torch.float64),
        ("fc-9x2-leakyrelu", (8,), 2, "dense", True, torch.float32),
        ("fc-9x2-identity", (8,), 2, "dense", False, torch.float64),
        ("fc-30x3-relu", (8,), 10, "sparse", True, torch.float32),
        ("conv-3x2-relu-nobias", (1, 5, 6), 10, "dense", False, torch.float64),
        ("conv-3x2-relu", (1, 5, 6), 4, "sparse", True, torch.float64),
        ("averages", (1, 6, 6), 4, "dense", True, torch.float64),
        ("averages", (1, 6, 6), 4, "dense", False, torch.float32),
    ],
)
def test_homogeneous_sweep_against_single_points(label, image, classes, kind, biases, dtype, loss):
    network = (
        of_module(averages(), image) if label == "averages" else model(label, classes=classes, image=image, examples=25)
    )
    theta, rows = network.initialisation(0, 1.0), network.directions(6, kind, biases, dtype)
    way = dispatch.HOMOGENEOUS
    # Few points, fewer than classes; then more points than classes with temperatures and nested examples.
    compare(network, theta, rows, SCALES[2:4], [1.0], None, loss, way)
    compare(network, theta, rows, SCALES, [1.0, 0.5, 4.0], [25, 4, 11, 25], loss, way)


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize(
    "label, image, kind, biases, dtype",
    [
        ("fc-9x2-tanh", (8,), "dense", False, torch.float64),
        ("fc-30x2-relu", (8,), "sparse", True, torch.float64),
        ("fc-30x2-softplus", (8,), "sparse", False, torch.float32),
        ("fc-6x3-relu-nobias-res", (8,), "dense", False, torch.float64),
        ("conv-3x2-relu", (1, 5, 6), "dense", True, torch.float64),
        ("conv-3x2-tanh", (1, 5, 6), "dense", False, torch.float32),
    ],
)
def test_sweep_with_shared_directions_against_single_points(label, image, kind, biases, dtype, loss):
    network = model(label, image=image, examples=25)
    theta = network.with_biases(network.initialisation(0, 1.0))
    rows = network.directions(6, kind, biases, dtype)
    compare(network, theta, rows, [0.1, 1.0, 30.0], [1.0, 3.0], [25, 4], loss, dispatch.SHARED)


def test_directions_along_biases_alone():
    # Cross terms of first layers' weights vanish, and groups start anywhere.
    network = model("fc-9x3-relu", examples=25)
    is_bias = network.metric("shell", True) - network.metric("shell", False) != 0
    rows = network.directions(5, "dense", True) * torch.as_tensor(is_bias)
    for moved in (rows, torch.cat([rows, network.directions(2)])):
        compare(
            network,
            network.initialisation(0, 1),
            moved,
            SCALES[1:5],
            [1.0],
            None,
            "cross_entropy",
            dispatch.HOMOGENEOUS,
        )


@pytest.mark.parametrize("number", range(3))
def test_directions_along_one_layer_alone(number):
    network = model("fc-9x2-relu-nobias", examples=25)
    edges = torch.tensor([0, *(p.size for p in network.parameters)]).cumsum(0)
    rows = torch.zeros(5, int(edges[-1]), dtype=torch.float64)
    rows[:, edges[number] : edges[number + 1]] = network.directions(5)[:, edges[number] : edges[number + 1]]
    theta = network.initialisation(0, 1.0)
    compare(network, theta, rows, SCALES[1:6], [1.0], None, "cross_entropy", dispatch.HOMOGENEOUS)


def test_ways():
    network = model("fc-9x2-relu")
    theta = network.initialisation(0, 1.0)

    def way(module, points, theta=theta):
        return dispatch.path_of(Problem(module, network.inputs), theta, points)

    assert way(network.module, 1) == dispatch.POINTWISE
    assert way(network.module, 2) == dispatch.HOMOGENEOUS
    assert way(network.module, 2, network.with_biases(theta)) == dispatch.SHARED
    assert way(network.logits, 1) == way(network.logits, 2, network.with_biases(theta)) == dispatch.GRAPH
    assert way(network.logits, 2) == dispatch.GRAPH_SWEEP
    for label in ("fc-9x2-tanh", "fc-9x2-relu-res"):
        assert way(model(label).module, 2, model(label).initialisation(0, 1)) == dispatch.SHARED


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize(
    "label, image, kind",
    [
        ("fc-60x3-relu", (8,), "sparse"),
        ("fc-9x3-relu", (8,), "dense"),
        ("conv-3x3-relu", (1, 5, 6), "dense"),
    ],
)
def test_all_ways_to_the_cross_terms_agree(label, image, kind, loss):
    """Ways: from each point's adjoints, dense or sparse; from families of adjoints; from logits at the last layer."""
    network = model(label, image=image, examples=20)
    theta, rows = network.initialisation(0, 1.0), network.directions(7, kind, True)
    chain = chains.of(network.module)
    directions = Directions(rows, chain)
    outputs, kept = chains.forward(chain, theta, network.inputs)
    _, meetings = homogeneous_sweep._push(curvature_tangents.linearised(kept, theta, rows.dtype), directions)
    loss = losses.LOSSES[loss]
    total = Sums(torch.as_tensor(planes.cholesky(rows.numpy())), loss, [1.0, 0.5, 3.0])
    adjoints = total.adjoints(outputs.expand(3, -1, -1), network.targets)
    assert len(meetings) == 3
    seeds, coefficients = homogeneous_sweep._families(adjoints, loss)
    assert len(seeds) == (3 if loss.name == "cross_entropy" else 4)
    used, expected = set(), {}
    places = {step.layer.weight.start: (step, groups) for step, groups in meetings}
    ways = zip(
        homogeneous_sweep._pulled_back(kept, theta, adjoints, places, rows.dtype),
        homogeneous_sweep._pulled_back(kept, theta, seeds, places, rows.dtype),
    )
    for ((step, groups), by_point), (_, by_family) in ways:
        layer = step.layer
        for group, along in groups.items():
            found = {"point": homogeneous_sweep._crossed_by_point(step, directions, along, by_point)}
            found["family"] = homogeneous_sweep._crossed_by_family(step, directions, along, by_family, coefficients)
            if isinstance(layer, layers.Dense):
                if directions.is_sparse(layer):
                    found["sparse"] = homogeneous_sweep._crossed_sparsely(step, directions, along, by_point)
                if step is meetings[-1][0]:
                    found["end"] = homogeneous_sweep._crossed_at_the_end(layer, directions, along, adjoints)
            expected[group] = expected.get(group, 0) + found["point"]
            for each in found.values():
                # Sums of the same products in another order.
                assert each.shape == (3, 7, 7)
                assert relative_error(each.numpy(), found["point"].numpy()) < 1e-12
            used |= set(found)
    chosen = {}
    for group, crossed in homogeneous_sweep._crossed(meetings, directions, kept, theta, adjoints, loss):
        chosen[group] = chosen.get(group, 0) + crossed
    assert chosen.keys() == expected.keys()
    for group, each in chosen.items():
        assert relative_error(each.numpy(), expected[group].numpy()) < 1e-12
    # Sparse products where few entries of Ẇ are not zero, as the rule has it.
    assert any(directions.is_sparse(step.layer) for step, _ in meetings) == (kind == "sparse")
    assert used == {"point", "family", "end"} | ({"sparse"} if kind == "sparse" else set())


@pytest.mark.parametrize("scales", [[1.0, -1.0], [0.0, 1.0]])
def test_scales_that_are_not_positive_are_refused(scales):
    network = model("fc-9x2-relu-nobias")
    with pytest.raises(ValueError, match="is not positive"):
        hessian.radial_sweep(
            Problem(network.module, network.inputs, network.targets),
            network.initialisation(0, 1),
            scales,
            network.directions(3),
        )


def test_effective_examples_far_out_in_single_precision():
    # Traces near 1e21, whose squares no single-precision number can hold.
    network = model("fc-9x3-relu-nobias")
    theta, rows = network.initialisation(0, 1.0), network.directions(4, dtype=torch.float32)
    arguments = (network.inputs, network.targets)
    sweep = hessian.radial_sweep(
        Problem(network.module, *arguments, loss="mean_squared_error"), theta, [1.0, 3e3], rows
    )
    assert relative_error(sweep[1].effective_examples, sweep[0].effective_examples) < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("label", ["fc-9x2-relu", "fc-9x2-tanh", "conv-3x2-relu-nobias"])
def test_sweep_on_cuda_agrees_with_the_cpu(label):
    network = model(label, image=(1, 5, 6))
    theta, rows = network.initialisation(9, 1.0), network.directions(6)
    tensors = (network.inputs, network.targets)
    on_cpu = hessian.radial_sweep(Problem(network.module, *tensors), theta, [0.5, 2.0], rows)
    moved = (each.cuda() for each in tensors)
    on_cuda = hessian.radial_sweep(Problem(network.module, *moved), theta.cuda(), [0.5, 2.0], rows.cuda())
    for found, expected in zip(on_cuda, on_cpu):
        assert relative_error(found.hessian, expected.hessian) < 1e-10


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_points_share_the_residuals_that_span_theirs(kind, biases, loss, monkeypatch):
    network = model("fc-9x2-relu" if biases else "fc-9x2-relu-nobias", inputs=8, classes=4, examples=25)
    theta, rows = network.initialisation(0, 1.0), network.directions(6, kind, biases)
    # Logits over temperature are α³/T: three of the values have three points each, and one its own. Residuals of the
    # squared error are combinations of the logits and the labels.
    points = [(a, t) for u in (0.3, 1.0, 7.0) for a, t in ((u ** (1 / 3), 1.0), (1.0, 1 / u), (0.5, 0.125 / u))]
    points.insert(4, (1.3, 0.9))
    seen, crossed = [], homogeneous_sweep._crossed

    def spy(meetings, directions, kept, theta, adjoints, loss):
        seen.append(len(adjoints))
        return crossed(meetings, directions, kept, theta, adjoints, loss)

    monkeypatch.setattr(homogeneous_sweep, "_crossed", spy)
    problem, options = Problem(network.module, network.inputs, network.targets, loss), hessian.Options([11, 25])
    found = hessian.curvature_at(problem, theta, points, rows, options)
    assert set(seen) == {4 if loss == "cross_entropy" else 2}
    for (scale, temperature), at_point in zip(points, found, strict=True):
        (expected,) = hessian.curvature_at(problem, scale * theta, [(1.0, temperature)], rows, options)
        for each, other in zip(at_point, expected, strict=True):
            assert_same(each, other, 1e-10, scale * theta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_residuals_are_combinations_of_few(dtype):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 10, generator=random, dtype=torch.float64)
    targets = torch.randint(10, (40,), generator=random)
    scales = torch.logspace(-6, 6, 49, dtype=torch.float64)[:, None, None]
    residuals = losses.CrossEntropy().gradient(scales * logits, targets)
    # A point without any, one whose logits overflow, and one far below the range of single precision.
    residuals[7], residuals[11], residuals[13] = 0, torch.nan, residuals[13] * 1e-200
    spanning, coefficients = homogeneous_sweep.spanning(residuals, dtype)
    assert len(spanning) < 35
    assert torch.isnan(coefficients[11]).all() and not coefficients[7].any()
    found = torch.tensordot(coefficients, spanning, 1)
    kept = [i for i in range(49) if i not in (7, 11)]
    errors = (found - residuals)[kept].abs().amax((1, 2)) / residuals[kept].abs().amax((1, 2))
    assert errors.max() < 60 * torch.finfo(dtype).eps
    spanning, coefficients = homogeneous_sweep.spanning(residuals[[11, 11]], dtype)
    assert torch.isnan(torch.tensordot(coefficients, spanning, 1)).all()
    spanning, coefficients = homogeneous_sweep.spanning(residuals[[7, 7, 7]], dtype)
    assert not torch.tensordot(coefficients, spanning, 1).any()


def test_the_likeliest_class_where_logits_vanish_or_overflow():
    logits = torch.tensor([[0.0, 3, 1], [2, -1, 5]], dtype=torch.float64)
    points = torch.stack([0 * logits, logits, torch.full_like(logits, torch.inf), torch.full_like(logits, torch.nan)])
    assert losses.likeliest(points).tolist() == [1, 2]


def test_values_that_are_the_same_to_rounding():
    values = torch.tensor([3.0, 1.0, 0.1 + 0.2, 3.0 * (1 + 2e-15), 0.3, 1.0 + 1e-12], dtype=torch.float64)
    assert homogeneous_sweep.same(values) == ([0, 1, 2, 5], [0, 1, 2, 0, 2, 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e2])
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_gauss_newton_of_examples_against_its_definition(loss, scale, dtype):
    """Includes a softmax that leaves all other classes less than the resolution of single precision."""
    random = torch.Generator().manual_seed(3)
    outputs = torch.randn(2, 7, 4, generator=random, dtype=torch.float64) * scale
    outputs[1] = outputs[0] * 1.5
    if scale > 1:
        outputs += 400.0 * scale * torch.eye(4)[[0, 1, 2, 3, 0, 1, 2]] / 100
    classes = losses.likeliest(outputs)
    loss = losses.LOSSES[loss]
    tangents = loss.relative(torch.randn(3, 4, 7, generator=random, dtype=dtype), classes)
    found, traces = loss.gauss_newton(outputs, tangents, classes, torch.zeros(7, dtype=torch.int64))
    columns = tangents.double().permute(2, 1, 0)
    if loss.name == "cross_entropy":
        p = torch.softmax(outputs, -1)
        # The likeliest class's tangents are zero: its p, near 1, drops out.
        p.scatter_(-1, outputs.argmax(-1, keepdim=True), 0)
        second = torch.diag_embed(p) - p[..., None] * p[..., None, :]
    else:
        second = torch.eye(4, dtype=torch.float64).expand(2, 7, 4, 4)
    expected = torch.einsum("nid,pnij,nje->pnde", columns, second, columns)
    largest = expected.sum(1).abs().amax((1, 2), keepdim=True)
    assert (largest > 0).all()
    tolerance = 20 * torch.finfo(dtype).eps
    assert ((found - expected.sum(1)).abs() / largest).max() < tolerance
    assert ((traces - expected.diagonal(dim1=2, dim2=3)).abs() / largest).max() < tolerance


@pytest.mark.parametrize("label", ["fc-9x2-tanh", "fc-6x3-relu-nobias-res", "conv-3x2-softplus"])
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_temperatures_share_tangents(label, loss, monkeypatch):
    network = model(label, image=(1, 5, 6), examples=25)
    theta, rows = network.with_biases(network.initialisation(0, 1.0)), network.directions(6)
    compare(network, theta, rows, [0.5, 2.0], [0.3, 1.0, 4.0], [25, 4], loss, dispatch.SHARED)
    seen, push = [], curvature_tangents.push
    monkeypatch.setattr(curvature_tangents, "push", lambda *given, **more: seen.append(given) or push(*given, **more))

    def passes(points):
        seen.clear()
        hessian.curvature_at(Problem(network.module, network.inputs, network.targets, loss), theta, points, rows)
        return len(seen)

    one = passes([(0.5, 1.0), (2.0, 1.0)])
    assert one > 1 and passes([(a, t) for a in (0.5, 2.0) for t in (0.3, 1.0, 4.0)]) == one
